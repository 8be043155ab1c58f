// Draws every figure of the page with the colours of the scheme in use, and again when the scheme changes or for paper.
(() => {
  "use strict";
  const root = document.documentElement;
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const config = { responsive: true, displayModeBar: false };

  // every "var(--role)" in a figure becomes that role's colour
  const themed = (value, style) => {
    if (typeof value === "string") {
      return value.startsWith("var(") ? style.getPropertyValue(value.slice(4, -1)).trim() : value;
    }
    if (Array.isArray(value)) return value.map((item) => themed(item, style));
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, themed(item, style)]));
  };

  const draw = (place) => {
    const { data, layout } = themed(figures[place.id], getComputedStyle(root));
    // paper has a width of its own, which Plotly would only measure after the page has been printed
    if (root.classList.contains("paper")) layout.width = place.clientWidth;
    return Plotly.react(place, data, layout, config);
  };
  // a figure in a closed section has no width to be drawn in; it waits until the section opens
  const shown = () => [...document.querySelectorAll("[data-figure]")].filter((place) => !place.closest("details:not([open])"));
  const drawAll = () => Promise.all(shown().map(draw));

  document.querySelectorAll("details").forEach((section) => section.addEventListener("toggle", drawAll));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  const paper = (on) => {
    root.classList.toggle("paper", on);
    drawAll();
  };
  addEventListener("beforeprint", () => paper(true));
  addEventListener("afterprint", () => paper(false));

  // the alignment measure on the horizontal axis of the scatter plots
  document.querySelectorAll("input[name=measure]").forEach((choice) =>
    choice.addEventListener("change", () => {
      document.querySelectorAll("[data-figure=scatter]").forEach((place) => {
        const figure = figures[place.id];
        figure.data.forEach((trace) => { trace.visible = trace.meta.replace(/_[^_]*$/, "") === choice.value; });
        figure.layout.xaxis.title.text = choice.dataset.name;
        draw(place);
      });
    }));

  drawAll().then(() => { root.dataset.drawn = "yes"; });
})();
