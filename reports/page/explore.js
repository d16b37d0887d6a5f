"use strict";
(function () {
  const get = (id) => document.getElementById(id), root = document.documentElement;
  const prompts = get("prompts"), pictures = document.body.dataset.pictures === "yes";
  const HAND = ["a photo of a {}."];
  let against = HAND, againstPhrases = {}, last = null, timer = 0, question = 0;

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  const percent = (x, digits) => (100 * x).toFixed(digits) + " %";
  const signed = (x) => (x >= 0 ? "+" : "−") + Math.abs(100 * x).toFixed(2);
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const typed = () => prompts.value.split("\n").map((line) => line.trim()).filter(Boolean);

  const phrases = () => Object.fromEntries(get("phrases").value.split("\n").map((line) => line.split(":"))
    .filter(([name, ...rest]) => name.trim() && rest.join(":").trim())
    .map(([name, ...rest]) => [name.trim(), rest.join(":").split("|").map((p) => p.trim()).filter(Boolean)]));

  function say(id, text, sign) {
    get(id).textContent = text;
    get(id).className = sign > 0 ? "up" : sign < 0 ? "down" : "";
  }

  function show(found) {
    last = found;
    const [held, low, high] = found.held_out.accuracy, [d, dlow, dhigh] = found.held_out.difference;
    say("held", percent(held, 1));
    get("held-hint").textContent = `${(100 * low).toFixed(1)} to ${(100 * high).toFixed(1)}`;
    say("difference", signed(d), dlow > 0 ? 1 : dhigh < 0 ? -1 : 0);
    get("difference-hint").textContent = `points, ${signed(dlow)} to ${signed(dhigh)}`;
    say("support", percent(found.support.accuracy, 1));
    get("support-hint").textContent = `before ${percent(found.support_against.accuracy, 1)}`;
    say("xent", found.support.xent.toFixed(4));
    get("xent-hint").textContent = `before ${found.support_against.xent.toFixed(4)}`;
    get("time").textContent = `Answered in ${found.milliseconds} ms.`;
    get("against").textContent = found.against.join(" · ");
    get("flips-say").textContent =
      `${found.flips.gained.count} pictures become right, ${found.flips.lost.count} become wrong.`;
    flips("gained", found);
    flips("lost", found);
    classes(found.classes);
    document.body.classList.remove("stale");
    document.body.dataset.answered = String(question);
  }

  function classes(rows) {
    const shown = rows.slice().sort((a, b) => Math.abs(b.after - b.before) - Math.abs(a.after - a.before)).slice(0, 30)
      .sort((a, b) => (a.after - a.before) - (b.after - b.before));
    const y = shown.map((_, i) => i), lines = { x: [], y: [] };
    shown.forEach((r, i) => { lines.x.push(100 * r.before, 100 * r.after, null); lines.y.push(i, i, null); });
    const marks = (key, name, color) => ({
      x: shown.map((r) => 100 * r[key]), y, name, mode: "markers", marker: { color, size: 11 },
      text: shown.map((r) => `${plain(r.name)}: ${signed(r.after - r.before)} points, ${r.pictures} pictures`),
      hovertemplate: "%{x:.1f} %<br>%{text}<extra></extra>",
    });
    const axis = { gridcolor: css("--line"), zerolinecolor: css("--line"), color: css("--soft") };
    Plotly.react("classes", [
      { ...lines, mode: "lines", line: { color: "#56B4E9", width: 3 }, hoverinfo: "skip", showlegend: false },
      marks("before", "before", "#8A8A8A"), marks("after", "typed", "#0072B2"),
    ], {
      height: Math.max(260, 26 * shown.length + 110), margin: { l: 20, r: 10, t: 40, b: 40 },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: css("--ink"), family: "system-ui, sans-serif", size: 13 },
      xaxis: { ...axis, title: { text: "right, %" } },
      yaxis: { ...axis, tickvals: y, ticktext: shown.map((r) => plain(r.name)), automargin: true, ticklabelstandoff: 6 },
      legend: { orientation: "h", y: 1.02, yanchor: "bottom" },
    }, { responsive: true, displayModeBar: false });
  }

  function flips(side, found) {
    const home = get(side);
    home.replaceChildren();
    for (const [index, truth, before, after] of found.flips[side].pictures) {
      const box = document.createElement(pictures ? "figure" : "div"), name = document.createElement("b");
      const change = document.createElement("span"), caption = document.createElement("figcaption");
      name.textContent = found.names[truth];
      change.textContent = `${found.names[before]} → ${found.names[after]}`;
      if (pictures) {
        const image = document.createElement("img");
        image.src = `picture/${index}`;
        image.alt = `training picture ${index}: ${found.names[truth]}`;
        caption.append(name, change);
        box.append(image, caption);
      } else {
        box.className = "chip";
        box.append(name, change);
      }
      home.append(box);
    }
  }

  async function ask() {
    const mine = ++question;
    document.body.classList.add("stale");
    if (!typed().length) {
      get("error").textContent = "Type a prompt with {} for the class name.";
      return;
    }
    try {
      const answer = await fetch("look", {
        method: "POST", headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ templates: typed(), against, phrases: phrases(), against_phrases: againstPhrases }),
      });
      const found = await answer.json();
      if (mine !== question) return;
      get("error").textContent = found.error || "";
      if (!found.error) show(found);
    } catch (e) {
      if (mine === question) get("error").textContent = "promptsearch explore does not respond; check that it is still running.";
    }
    history.replaceState(null, "", "#" + encodeURIComponent(prompts.value));
  }

  const soon = () => {
    document.body.classList.add("stale");
    clearTimeout(timer);
    timer = setTimeout(ask, 120);
  };

  function list(templates, all) {
    const words = get("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = templates.filter((t) => words.every((w) => t.toLowerCase().includes(w)));
    get("bank").replaceChildren(...found.slice(0, 500).map((t) => {
      const row = document.createElement("li"), take = document.createElement("button");
      const add = document.createElement("button");
      take.type = add.type = "button";
      take.textContent = t;
      add.textContent = "+";
      add.title = "add to the ensemble";
      take.addEventListener("click", () => { prompts.value = t; ask(); });
      add.addEventListener("click", () => { prompts.value = [...typed(), t].join("\n"); ask(); });
      row.append(take, add);
      return row;
    }));
    if (found.length > 500 || all > templates.length) {
      const more = document.createElement("li");
      more.textContent = "… and more; search to find them";
      get("bank").append(more);
    }
  }

  function paint(theme) {
    root.dataset.theme = theme;
    get("theme").textContent = theme === "dark" ? "light" : "dark";
    if (last) classes(last.classes);
  }

  const wanted = matchMedia("(prefers-color-scheme: dark)");
  paint(wanted.matches ? "dark" : "light");
  wanted.addEventListener("change", (e) => paint(e.matches ? "dark" : "light"));
  get("theme").addEventListener("click", () => paint(root.dataset.theme === "dark" ? "light" : "dark"));
  get("pin").addEventListener("click", () => { if (typed().length) { against = typed(); againstPhrases = phrases(); ask(); } });
  get("unpin").addEventListener("click", () => { against = HAND; againstPhrases = {}; ask(); });
  prompts.addEventListener("input", soon);
  get("phrases").addEventListener("input", soon);
  try {
    if (location.hash.length > 1) prompts.value = decodeURIComponent(location.hash.slice(1));
  } catch (e) { /* not a link that this page made */ }
  fetch("bank").then((a) => a.json()).then((bank) => {
    list(bank.templates, bank.all);
    get("filter").addEventListener("input", () => list(bank.templates, bank.all));
  });
  ask();
})();
