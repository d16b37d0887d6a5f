"use strict";
(function () {
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
  function paint(theme) {
    root.dataset.theme = theme;
    button.textContent = theme === "dark" ? "light" : "dark";
    for (const div of plots) if (div.data) Plotly.relayout(div, { template: template() });
  }
  paint(wanted.matches ? "dark" : "light");
  // On a phone two plots side by side become two plots, one below the other, and bars lose the words in them.
  function narrow(figure) {
    const layout = figure.layout;
    for (const trace of figure.data) if (trace.type === "bar") trace.textposition = "none";
    for (const axis of [layout.xaxis, layout.yaxis]) if (axis && axis.ticktext) axis.tickfont = { size: 10 };
    if (!layout.xaxis2 || layout.xaxis3) return;
    const title = 60 / (2 * layout.height);
    layout.height *= 2;
    layout.xaxis.domain = [0, 1]; layout.xaxis2.domain = [0, 1];
    layout.yaxis.domain = [0.5 + 2 * title, 1]; layout.yaxis2.domain = [0, 0.5 - 2 * title];
    (layout.annotations || []).forEach((a, i) => { a.x = 0.5; a.y = i ? 0.5 - 2 * title : 1; });
    if (layout.yaxis2.matches) { delete layout.yaxis2.matches; layout.yaxis2.showticklabels = true; }
    layout.legend = { ...layout.legend, y: 1 + 1.2 * title };
  }
  for (const div of plots) {
    const figure = JSON.parse(document.getElementById(div.dataset.figure).textContent);
    figure.layout.template = template();
    figure.layout.autosize = true;
    if (innerWidth < 640) narrow(figure);
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
  let before = root.dataset.theme;
  addEventListener("beforeprint", () => { before = root.dataset.theme; paint("light"); });
  addEventListener("afterprint", () => paint(before));
})();
