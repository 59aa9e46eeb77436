// Enlarged pictures of each lesion in the list, which are drawn when they become visible.
// At most so many are drawn before they are visible, since each needs memory.
const CROP = { field: 60, margin: 30, width: 150, early: 100 };

class Crop {
  constructor(figure, lesion, volume, finest) {
    this.figure = figure;
    this.lesion = lesion;
    this.volume = volume;
    this.plane = figure.dataset.plane;
    const layout = volume.layout(this.plane);
    Object.assign(this, layout);
    const { box } = lesion;
    const middle = (box[layout.axis] + box[layout.axis + 3]) / 2;
    this.index =
      this.plane === "axial"
        ? lesion.key
        : Math.max(0, Math.min(layout.count - 1, Math.floor(middle)));
    const [a, b] = [box[this.down], box[this.down + 3]];
    this.edges = [
      box[this.across] * this.column, (this.flip ? this.rows - b : a) * this.row,
      box[this.across + 3] * this.column, (this.flip ? this.rows - a : b) * this.row,
    ];
    const [left, top, right, bottom] = this.edges;
    this.field = Math.max(CROP.field, Math.max(right - left, bottom - top) + CROP.margin);
    this.corner = [(left + right - this.field) / 2, (top + bottom - this.field) / 2];
    // One pixel or more per voxel of the scan.
    this.native = this.field / finest;
  }

  // Columns and rows of the plane in the crop: left, top, right, bottom.
  region() {
    const limit = (value, count) => Math.max(0, Math.min(count, value));
    const [u, v] = this.corner;
    return [
      limit(Math.floor(u / this.column), this.columns),
      limit(Math.floor(v / this.row), this.rows),
      limit(Math.ceil((u + this.field) / this.column), this.columns),
      limit(Math.ceil((v + this.field) / this.row), this.rows),
    ];
  }

  ready() {
    if (this.axis === 2) return Boolean(this.volume.slices[this.index]);
    const [, top, , bottom] = this.region();
    return this.volume.slices.slice(this.rows - bottom, this.rows - top).every(Boolean);
  }

  draw(window_, caption) {
    const canvas = this.figure.querySelector("canvas");
    const side = Math.max(canvas.clientWidth, CROP.width);
    const ratio = window.devicePixelRatio || 1;
    canvas.width = canvas.height = Math.round(side * ratio);
    const context = canvas.getContext("2d");
    context.fillRect(0, 0, canvas.width, canvas.height);
    const [left, top, right, bottom] = this.region();
    const hu = this.volume.plane(this.plane, this.index, [left, top, right, bottom]);
    const picture = document.createElement("canvas");
    picture.width = right - left;
    picture.height = bottom - top;
    picture.getContext("2d").putImageData(grayImage(hu, right - left, window_), 0, 0);
    const scale = canvas.width / this.field;
    context.imageSmoothingQuality = "high";
    context.drawImage(
      picture,
      (left * this.column - this.corner[0]) * scale, (top * this.row - this.corner[1]) * scale,
      (right - left) * this.column * scale, (bottom - top) * this.row * scale
    );
    this.drawBox(context, scale, ratio);
    this.figure.querySelector("figcaption").textContent =
      `${caption}, × ${(side / this.native).toFixed(1)}`;
    this.figure.dataset.drawn = this.index;
  }

  drawBox(context, scale, ratio) {
    const [left, top, right, bottom] = this.edges;
    const x = (left - this.corner[0]) * scale;
    const y = (top - this.corner[1]) * scale;
    context.strokeStyle = context.fillStyle = "#ffb000";
    context.lineWidth = 1.5 * ratio;
    context.strokeRect(x, y, (right - left) * scale, (bottom - top) * scale);
    context.font = `600 ${12 * ratio}px system-ui, sans-serif`;
    context.fillText(String(this.lesion.id), x, y - 4 * ratio);
  }
}

// Draw crops when they are visible and their slices are decoded.
class Crops {
  constructor(crops, options) {
    this.options = options;
    this.pending = new Set();
    this.all = crops;
    const byFigure = new Map(crops.map((crop) => [crop.figure, crop]));
    const observer = new IntersectionObserver(
      (entries) => {
        entries.filter((entry) => entry.isIntersecting).forEach(({ target }) => {
          observer.unobserve(target);
          this.pending.add(byFigure.get(target));
        });
        this.drawPending();
      },
      { rootMargin: "600px" }
    );
    crops.forEach((crop) => observer.observe(crop.figure));
  }

  drawPending() {
    this.pending.forEach((crop) => {
      if (!crop.ready()) return;
      this.pending.delete(crop);
      crop.draw(...this.options(crop));
    });
  }

  redraw() {
    this.all.forEach((crop) => crop.figure.dataset.drawn && this.pending.add(crop));
    this.drawPending();
  }

  drawAll(limit = Infinity) {
    this.all.slice(0, limit).forEach((crop) => crop.figure.dataset.drawn || this.pending.add(crop));
    this.drawPending();
  }
}
