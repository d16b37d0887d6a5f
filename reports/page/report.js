"use strict";
(function () {
  const PAPER = 660; // pixels: the text of A4 and letter paper with usual margins
  const root = document.documentElement, button = document.getElementById("theme");
  const wanted = matchMedia("(prefers-color-scheme: dark)");
  const plots = Array.from(document.querySelectorAll(".plot"));
  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  function template() {
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), linecolor: css("--line"), color: css("--soft") };
    return { layout: {
      font: { color: css("--ink"), family: "system-ui, sans-serif", size: 13 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", xaxis: axis, yaxis: axis,
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--ink") }, align: "left" },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom", x: 0 },
    } };
  }
  // On paper a plot is as wide as the paper's text; on the screen as its card (null: plotly measures it).
  function paint(theme, width = null) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "light" : "dark";
    for (const div of plots) if (div.data) Plotly.relayout(div, { template: template(), width, autosize: width === null });
  }
  paint(wanted.matches ? "dark" : "light");
  // On a phone plots side by side become plots one below the other, and bars lose the words in them.
  function narrow(figure) {
    const layout = figure.layout, key = (axis, i) => axis + "axis" + (i ? i + 1 : "");
    for (const trace of figure.data) if (trace.type === "bar") trace.textposition = "none";
    for (const axis of Object.values(layout)) if (axis && axis.ticktext) axis.tickfont = { size: 10 };
    let count = 1;
    while (layout[key("x", count)]) count += 1;
    if (count < 2) return;
    layout.height *= count;
    const below = 90 / layout.height, above = 40 / layout.height; // for the names of an axis, and for a title
    for (let i = 0; i < count; i += 1) {
      const x = layout[key("x", i)], y = layout[key("y", i)], top = 1 - i / count - (i ? above : 0);
      x.domain = [0, 1];
      y.domain = [1 - (i + 1) / count + (i < count - 1 ? below : 0), top];
      if (i) { delete y.matches; y.showticklabels = true; }
      if (layout.annotations && layout.annotations[i]) Object.assign(layout.annotations[i], { x: 0.5, y: top });
    }
    layout.legend = { ...layout.legend, y: 1 + 1.2 * above };
  }
  for (const div of plots) {
    const figure = JSON.parse(document.getElementById(div.dataset.figure).textContent);
    figure.layout.template = template();
    figure.layout.autosize = true;
    if (innerWidth < 640) narrow(figure);
    div.style.height = figure.layout.height + "px";
    Plotly.newPlot(div, figure.data, figure.layout,
      { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "select2d"] });
  }
  for (const part of document.querySelectorAll("details.part")) {
    part.addEventListener("toggle", () => part.querySelectorAll(".plot").forEach((div) => Plotly.Plots.resize(div)));
  }
  addEventListener("hashchange", () => {
    const part = document.getElementById(location.hash.slice(1));
    if (part && part.tagName === "DETAILS") part.open = true;
  });
  button.addEventListener("click", () => paint(root.dataset.theme === "dark" ? "light" : "dark"));
  document.getElementById("print").addEventListener("click", () => print());
  wanted.addEventListener("change", (e) => paint(e.matches ? "dark" : "light"));
  const parts = Array.from(document.querySelectorAll("details.part"));
  let before = root.dataset.theme, shut = [];
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    shut = parts.filter((part) => !part.open);
    for (const part of shut) part.open = true;
    paint("light", PAPER);
  });
  addEventListener("afterprint", () => {
    for (const part of shut) part.open = false;
    paint(before);
  });
})();
