// A guest's curves: what it has and holds, and what comes back, with the log's events as lines across them.

const MIB = 2 ** 20;
const LEVELS = [["held_bytes", "held"], ["used_bytes", "guest uses"], ["target_bytes", "target"], ["balloon_bytes", "balloon"]];
const FLOWS = [["returned_bytes", "returned"], ["refaulted_bytes", "came back"]];
const STYLES = {
  held_bytes: { colour: "held", width: 2 },
  used_bytes: { colour: "used", width: 2, dash: [8, 4] },
  target_bytes: { colour: "faint", width: 1, dash: [2, 3] },
  balloon_bytes: { colour: "returned", width: 1.5, dash: [12, 3, 2, 3] },
  returned_bytes: { colour: "returned", width: 2 },
  refaulted_bytes: { colour: "refaulted", width: 2, dash: [8, 4] },
};

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// What grew, a second, since the last point at which it was known.
function rates(times, values) {
  let last = NaN;
  return values.map((value, place) => {
    if (value === null) return null;
    const passed = times[place] - last;
    last = times[place];
    return passed > 0 ? value / passed : null;
  });
}

export class Curves {
  constructor(levels, flows, formatSize) {
    this.places = [levels, flows];
    this.formatSize = formatSize;
    this.plots = [];
    this.events = [];
    new ResizeObserver(() => this.resize()).observe(levels);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.renew());
  }

  show(told) {
    this.told = told;
    this.events = told.events;
    const levels = [told.t_s, ...LEVELS.map(([name]) => told[name].map((value) => (value === null ? null : value / MIB)))];
    const flows = [told.t_s, ...FLOWS.map(([name]) => rates(told.t_s, told[name]).map((value) => (value === null ? null : value / MIB)))];
    if (!this.plots.length) {
      this.plots = [this.plot(this.places[0], LEVELS, levels, ""), this.plot(this.places[1], FLOWS, flows, "/s")];
    } else {
      this.plots[0].setData(levels);
      this.plots[1].setData(flows);
    }
  }

  clear() {
    this.plots.forEach((plot) => plot.destroy());
    this.plots = [];
  }

  renew() {
    if (!this.told) return;
    this.clear();
    this.show(this.told);
  }

  resize() {
    this.plots.forEach((plot, index) => plot.setSize({ width: this.places[index].clientWidth, height: 220 }));
  }

  plot(place, names, data, per) {
    const written = (value) => (value === null || value === undefined ? "–" : this.formatSize(value * MIB) + per);
    const axis = { stroke: colour("ink"), grid: { stroke: colour("line"), width: 1 }, ticks: { stroke: colour("line"), width: 1 } };
    return new uPlot(
      {
        width: place.clientWidth,
        height: 220,
        scales: { y: { range: (plot, low, high) => [0, Math.max(1, (high || 0) * 1.05)] } },
        axes: [axis, { ...axis, size: 80, values: (plot, ticks) => ticks.map(written) }],
        series: [
          {},
          ...names.map(([name, label]) => ({
            label,
            stroke: colour(STYLES[name].colour),
            width: STYLES[name].width,
            dash: STYLES[name].dash,
            points: { show: false },
            value: (plot, value) => written(value),
          })),
        ],
        hooks: { draw: [(plot) => this.drawEvents(plot)] },
      },
      data,
      place,
    );
  }

  drawEvents(plot) {
    const { ctx, bbox } = plot;
    ctx.save();
    ctx.lineWidth = 1;
    ctx.setLineDash([4, 4]);
    for (const event of this.events) {
      const x = plot.valToPos(event.t_s, "x", true);
      if (x < bbox.left || x > bbox.left + bbox.width) continue;
      ctx.strokeStyle = colour(event.level === "info" ? "faint" : "trouble");
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
    }
    ctx.restore();
  }
}
