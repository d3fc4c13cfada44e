// What a job uses, as plots (uPlot). Each says its last value in words, too.
"use strict";

(() => {
  const section = document.getElementById("plots");
  const MOST_POINTS = 1200;
  // The places of a point's parts: time, CPUs, memory, read, written, processes.
  const PLOTS = [
    { title: "CPUs", parts: [[1, ""]], text: number },
    { title: "Memory", parts: [[2, ""]], text: size },
    { title: "Disk, a second", parts: [[3, "read"], [4, "written"]], text: size },
    { title: "Processes and threads", parts: [[5, ""]], text: number },
  ];
  let points = JSON.parse(section.dataset.points);
  let drawn = [];

  function number(value) {
    return value >= 10 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(2);
  }

  function size(value) {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    while (value >= 1024 && unit < units.length - 1) {
      value /= 1024;
      unit += 1;
    }
    return (unit === 0 ? value.toFixed(0) : value.toFixed(1)) + " " + units[unit];
  }

  function color(name) {
    return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  }

  function axis(plot) {
    const grid = { stroke: color("--line"), width: 1 };
    const common = { stroke: color("--text"), grid, ticks: grid };
    // UTC, as all times of the console are.
    const clock = (_, ticks) => ticks.map((tick) => new Date(tick * 1000).toISOString().slice(11, 19));
    // Sizes are told in powers of 1024, and so they are divided.
    const powers = Array.from({ length: 51 }, (_, power) => 2 ** power);
    const steps = plot.text === size ? { incrs: powers } : {};
    return [{ ...common, space: 80, values: clock }, { ...common, ...steps, size: 80, values: (_, ticks) => ticks.map((tick) => tick === null ? "" : plot.text(tick)) }];
  }

  function data(plot) {
    return [points.map((point) => point[0]), ...plot.parts.map(([place]) => points.map((point) => point[place]))];
  }

  function words(plot) {
    const said = plot.parts.map(([place, name]) => {
      const last = points.at(-1)[place];
      return (name ? name + " " : "") + (last === null ? "not known" : plot.text(last));
    });
    return plot.title + ": " + said.join(", ");
  }

  function draw(plot, place) {
    const figure = document.createElement("figure");
    const caption = document.createElement("figcaption");
    const frame = document.createElement("div");
    // What it shows is said in the caption.
    frame.setAttribute("aria-hidden", "true");
    figure.append(caption, frame);
    place.append(figure);
    const strokes = [color("--link"), color("--bad")];
    const series = plot.parts.map(([, name], at) => ({ label: name || plot.title, stroke: strokes[at], width: 2, dash: at ? [6, 4] : [] }));
    const chart = new uPlot(
      { width: frame.clientWidth, height: 150, legend: { show: false }, cursor: { show: false }, axes: axis(plot), series: [{}, ...series], scales: { y: { range: (_, low, high) => [0, high > 0 ? high * 1.1 : 1] } } },
      data(plot),
      frame,
    );
    return { plot, caption, frame, chart };
  }

  function show() {
    if (points.length < 2) return;
    section.hidden = false;
    if (drawn.length === 0) {
      const place = section.querySelector(".plots");
      drawn = PLOTS.filter((plot) => plot.parts.some(([part]) => points.some((point) => point[part] !== null))).map((plot) => draw(plot, place));
    }
    for (const { plot, caption, chart } of drawn) {
      caption.textContent = words(plot);
      chart.setData(data(plot));
    }
  }

  function again() {
    section.querySelector(".plots").replaceChildren();
    drawn = [];
    show();
  }

  window.addEventListener("resize", () => {
    for (const { frame, chart } of drawn) chart.setSize({ width: frame.clientWidth, height: 150 });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);

  window.tellUsage = (told) => {
    // A sample that others have asked for a moment ago is one for all.
    const last = told.first || points.length === 0 ? 0 : points.at(-1)[0];
    points = (told.first ? [] : points).concat(told.points.filter((point) => point[0] > last));
    if (points.length > MOST_POINTS) points = points.filter((_, at) => at % 2 === 0);
    show();
  };
  show();
})();
