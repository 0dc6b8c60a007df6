// A guest's page map on a canvas: a cell for each block of 2 MiB, or for as many of them as there is room for.

const STATES = {
  h: ["held", "held"],
  p: ["partial", "held in part"],
  f: ["refaulted", "came back"],
  r: ["returned", "given back"],
  n: ["never", "never touched"],
  u: ["unknown", "not known"],
};
const BLOCK_BYTES = 2 ** 21;
const ROWS_MAX = 48;
const POINT = "Point at a block, or move with the arrow keys.";

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

// Each state has a shape, so that a map reads without colours: full, lower half, a triangle, a dot, nothing, a cross.
function drawCell(context, state, x, y, size) {
  context.fillStyle = colour("never");
  context.fillRect(x, y, size, size);
  context.lineWidth = 1;
  context.fillStyle = context.strokeStyle = colour(STATES[state][0]);
  if (state === "h") {
    context.fillRect(x, y, size, size);
  } else if (state === "p") {
    context.fillRect(x, y + size / 2, size, size / 2);
  } else if (state === "f") {
    context.beginPath();
    context.moveTo(x, y + size);
    context.lineTo(x + size, y + size);
    context.lineTo(x + size, y);
    context.fill();
  } else if (state === "r") {
    context.beginPath();
    context.arc(x + size / 2, y + size / 2, Math.max(1, size / 4), 0, 2 * Math.PI);
    context.fill();
  } else if (state === "u") {
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(x + size, y + size);
    context.moveTo(x + size, y);
    context.lineTo(x, y + size);
    context.stroke();
  }
}

export class PageMap {
  constructor(canvas, told, legend, formatSize) {
    this.canvas = canvas;
    this.told = told;
    this.legend = legend;
    this.formatSize = formatSize;
    this.states = "";
    this.regions = [];
    this.cells = [];
    this.cursor = -1;
    canvas.addEventListener("pointermove", (event) => this.point(this.cellAt(event)));
    canvas.addEventListener("pointerdown", (event) => this.point(this.cellAt(event)));
    canvas.addEventListener("keydown", (event) => this.press(event));
    new ResizeObserver(() => this.draw()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  show(told) {
    this.states = told === null ? "" : told.states.map(([letter, count]) => letter.repeat(count)).join("");
    this.regions = told === null ? [] : told.regions;
    if (told === null) this.cursor = -1; // another guest's
    this.draw();
  }

  draw() {
    const width = this.canvas.clientWidth;
    if (!width) return;
    const size = this.states.length > 4096 ? 8 : 12;
    this.columns = Math.max(1, Math.floor(width / size));
    this.each = Math.max(1, Math.ceil(this.states.length / (this.columns * ROWS_MAX)));
    this.cells = [];
    for (let start = 0; start < this.states.length; start += this.each) {
      this.cells.push(this.mostFrequent(start, Math.min(this.states.length, start + this.each)));
    }
    const rows = Math.max(1, Math.ceil(this.cells.length / this.columns));
    const ratio = devicePixelRatio || 1;
    const height = rows * size;
    if (this.canvas.height !== height * ratio || this.canvas.width !== width * ratio) {
      this.canvas.style.height = `${height + 2}px`;
      this.canvas.width = width * ratio;
      this.canvas.height = height * ratio;
    }
    this.size = size;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);
    this.cells.forEach((state, index) => {
      drawCell(context, state, (index % this.columns) * size, Math.floor(index / this.columns) * size, size - 1);
    });
    if (this.cursor >= 0 && this.cursor < this.cells.length) {
      context.strokeStyle = colour("ink");
      context.lineWidth = 2;
      context.strokeRect((this.cursor % this.columns) * size, Math.floor(this.cursor / this.columns) * size, size - 1, size - 1);
    }
    this.explain();
    this.tell();
  }

  mostFrequent(start, end) {
    if (end - start === 1) return this.states[start];
    const counts = {};
    for (let place = start; place < end; place += 1) counts[this.states[place]] = (counts[this.states[place]] || 0) + 1;
    return Object.keys(STATES).reduce((best, state) => ((counts[state] || 0) > (counts[best] || 0) ? state : best), "h");
  }

  explain() {
    const counts = {};
    for (const state of this.states) counts[state] = (counts[state] || 0) + 1;
    this.legend.replaceChildren(
      ...Object.keys(STATES).filter((state) => counts[state]).map((state) => {
        const item = document.createElement("li");
        const mark = document.createElement("canvas");
        mark.width = mark.height = 14;
        mark.setAttribute("aria-hidden", "true");
        drawCell(mark.getContext("2d"), state, 0, 0, 14);
        item.dataset.state = state;
        item.dataset.bytes = counts[state] * BLOCK_BYTES;
        item.append(mark, `${STATES[state][1]} ${this.formatSize(counts[state] * BLOCK_BYTES)}`);
        return item;
      }),
    );
  }

  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / this.size);
    const row = Math.floor((event.clientY - box.top) / this.size);
    return column < this.columns ? row * this.columns + column : -1;
  }

  press(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.columns, ArrowDown: this.columns };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.point(Math.min(this.cells.length - 1, Math.max(0, this.cursor + steps[event.key])));
  }

  point(cell) {
    if (cell < 0 || cell >= this.cells.length) return;
    this.cursor = cell;
    this.draw();
  }

  tell() {
    const text = this.cursor >= 0 && this.cursor < this.cells.length ? this.block() : POINT;
    if (this.told.textContent !== text) this.told.textContent = text; // or who has it read out hears it again and again
  }

  block() {
    const block = this.cursor * this.each;
    const [gpa, , first] = this.regions.filter((region) => region[2] <= block).pop();
    const address = Math.floor(gpa / BLOCK_BYTES) * BLOCK_BYTES + (block - first) * BLOCK_BYTES;
    const many = this.each > 1 ? `, most of ${this.each} blocks` : "";
    return `0x${address.toString(16)}: ${STATES[this.cells[this.cursor]][1]}${many}`;
  }
}
