// One of the three planes: an axial, coronal or sagittal section that can be zoomed and panned.
// Positions in it are millimeters from its upper left corner.
class Plane {
  constructor(stage, volume) {
    this.name = stage.dataset.plane;
    this.stage = stage;
    this.volume = volume;
    this.canvas = stage.querySelector("canvas");
    this.context = this.canvas.getContext("2d");
    this.overlay = new Overlay(stage.querySelector("svg"));
    Object.assign(this, volume.layout(this.name));
    this.extent = [this.columns * this.column, this.rows * this.row];
    this.picture = document.createElement("canvas");
    this.picture.width = this.columns;
    this.picture.height = this.rows;
    this.rulers = [];
    this.stale = true;
    this.fit();
  }

  fit() {
    this.zoom = 1;
    this.middle = this.extent.map((side) => side / 2);
  }

  resize() {
    const { clientWidth, clientHeight } = this.stage;
    this.size = [clientWidth, clientHeight];
    this.ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(clientWidth * this.ratio));
    this.canvas.height = Math.max(1, Math.round(clientHeight * this.ratio));
  }

  // Pixels per millimeter.
  get scale() {
    return this.zoom * Math.min(this.size[0] / this.extent[0], this.size[1] / this.extent[1]);
  }

  toScreen([u, v]) {
    return [
      (u - this.middle[0]) * this.scale + this.size[0] / 2,
      (v - this.middle[1]) * this.scale + this.size[1] / 2,
    ];
  }

  toPlane([x, y]) {
    return [
      (x - this.size[0] / 2) / this.scale + this.middle[0],
      (y - this.size[1] / 2) / this.scale + this.middle[1],
    ];
  }

  // Continuous voxel coordinates of a point of the plane.
  toVoxels([u, v], index) {
    const point = [0, 0, 0];
    point[this.axis] = index + 0.5;
    point[this.across] = u / this.column;
    point[this.down] = this.flip ? this.rows - v / this.row : v / this.row;
    return point;
  }

  // Rectangle of a 3D box in millimeters.
  rectangle(box) {
    const [a, b] = [box[this.down], box[this.down + 3]];
    return {
      left: box[this.across] * this.column,
      right: box[this.across + 3] * this.column,
      top: (this.flip ? this.rows - b : a) * this.row,
      bottom: (this.flip ? this.rows - a : b) * this.row,
    };
  }

  // Zoom so that a point of the screen keeps its place.
  zoomBy(factor, point) {
    const before = this.toPlane(point);
    this.zoom = Math.max(1, Math.min(40, this.zoom * factor));
    const after = this.toPlane(point);
    this.move(before[0] - after[0], before[1] - after[1]);
  }

  move(du, dv) {
    const limit = (value, side) => Math.max(0, Math.min(side, value));
    this.middle = [
      limit(this.middle[0] + du, this.extent[0]),
      limit(this.middle[1] + dv, this.extent[1]),
    ];
    if (this.zoom === 1) this.fit();
  }

  // Move the shown part so that a rectangle is visible.
  reveal({ left, right, top, bottom }) {
    const center = [(left + right) / 2, (top + bottom) / 2];
    const [x1, y1] = this.toScreen([left, top]);
    const [x2, y2] = this.toScreen([right, bottom]);
    if (x1 < 0 || y1 < 0 || x2 > this.size[0] || y2 > this.size[1]) {
      this.move(center[0] - this.middle[0], center[1] - this.middle[1]);
    }
  }

  draw(state, lesions) {
    const index = state.position[this.axis];
    if (this.stale || index !== this.index) {
      this.hu = this.volume.plane(this.name, index, [0, 0, this.columns, this.rows]);
      this.index = index;
      this.stale = false;
      this.window = null;
    }
    if (this.window !== state.window) {
      const image = grayImage(this.hu, this.columns, state.window);
      this.picture.getContext("2d").putImageData(image, 0, 0);
      this.window = state.window;
    }
    const { context, ratio, scale } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const [x, y] = this.toScreen([0, 0]);
    context.imageSmoothingQuality = "high";
    context.drawImage(
      this.picture,
      x * ratio, y * ratio, this.extent[0] * scale * ratio, this.extent[1] * scale * ratio
    );
    this.drawOverlay(state, lesions);
  }

  drawOverlay(state, lesions) {
    const here = lesions.filter((one) => this.shows(one)).map((one) => {
      const { left, right, top, bottom } = this.rectangle(one.box);
      const [x1, y1] = this.toScreen([left, top]);
      const [x2, y2] = this.toScreen([right, bottom]);
      return { id: one.id, x: x1, y: y1, w: x2 - x1, h: y2 - y1 };
    });
    const [x, y] = this.crosshair(state);
    const [width, height] = this.size;
    const others = [
      svgNode("line", { class: "cross", x1: x, x2: x, y1: 0, y2: height }),
      svgNode("line", { class: "cross", x1: 0, x2: width, y1: y, y2: y }),
    ];
    this.rulers.filter((one) => one.index === this.index).forEach((one) => {
      const [[x1, y1], [x2, y2]] = [this.toScreen(one.start), this.toScreen(one.end)];
      const length = Math.hypot(one.end[0] - one.start[0], one.end[1] - one.start[1]);
      others.push(
        svgNode("line", { class: "ruler", x1, y1, x2, y2 }),
        svgNode("text", { class: "length", x: x2 + 6, y: y2 - 4 }, `${length.toFixed(1)} mm`)
      );
    });
    this.overlay.draw(here, width, height, others);
  }

  // Whether the plane cuts a lesion. A box between the centers of two planes is on its middle one.
  shows({ box }) {
    const [low, high] = [box[this.axis], box[this.axis + 3]];
    const first = Math.ceil(low - 0.5);
    const last = Math.ceil(high - 0.5) - 1;
    if (first <= last) return first <= this.index && this.index <= last;
    return this.index === Math.min(this.count - 1, Math.floor((low + high) / 2));
  }

  // Screen position of the point where the three planes meet.
  crosshair(state) {
    const row = state.position[this.down] + 0.5;
    return this.toScreen([
      (state.position[this.across] + 0.5) * this.column,
      (this.flip ? this.rows - row : row) * this.row,
    ]);
  }
}
