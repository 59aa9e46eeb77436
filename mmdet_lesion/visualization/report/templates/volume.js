// The scan's voxels: slices are decoded one by one, those next to the shown one first.
class SliceVolume {
  constructor(data) {
    [this.width, this.height, this.depth] = data.size;
    this.spacing = data.spacing;
    this.sources = data.slices;
    this.slices = new Array(this.depth).fill(null);
    this.levels = huLevels(data.knots);
    this.blocks = [];
    this.focus = this.depth >> 1;
    this.loaded = 0;
    const canvas = document.createElement("canvas");
    canvas.width = this.width;
    canvas.height = this.height;
    this.context = canvas.getContext("2d", { willReadFrequently: true });
  }

  async loadSlice(z) {
    const image = new Image();
    image.src = "data:image/webp;base64," + this.sources[z];
    this.sources[z] = "";
    await image.decode();
    this.context.drawImage(image, 0, 0);
    const { data } = this.context.getImageData(0, 0, this.width, this.height);
    const gray = new Uint8Array(this.width * this.height);
    for (let i = 0; i < gray.length; i += 1) gray[i] = data[4 * i];
    this.slices[z] = gray;
    this.loaded += 1;
  }

  // Decode all slices; ``changed`` is called with each. All but the first one wait until the page
  // is loaded, which images would delay.
  async load(changed) {
    const waiting = new Set(this.slices.keys());
    const loadNext = async () => {
      let next = null;
      for (const z of waiting) {
        if (next === null || Math.abs(z - this.focus) < Math.abs(next - this.focus)) next = z;
      }
      waiting.delete(next);
      await this.loadSlice(next);
      changed(next);
    };
    const worker = async () => {
      while (waiting.size) await loadNext();
    };
    await loadNext();
    if (document.readyState !== "complete") {
      await new Promise((done) => window.addEventListener("load", done));
    }
    await Promise.all([worker(), worker(), worker(), worker()]);
  }

  // Add voxels that are not compressed with loss; old browsers cannot decompress them.
  async addBlock({ start, size, data }) {
    if (typeof DecompressionStream === "undefined") return;
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const planes = new Uint8Array(await new Response(stream).arrayBuffer());
    const [width, height, depth] = size;
    const count = width * height * depth;
    const values = new Int16Array(count);
    for (let i = 0, z = 0; z < depth; z += 1) {
      for (let y = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1, i += 1) {
          const coded = planes[i] | (planes[i + count] << 8) | (planes[i + 2 * count] << 16);
          const west = x ? values[i - 1] : 0;
          const north = y ? values[i - width] : 0;
          const corner = x && y ? values[i - width - 1] : 0;
          const guess = Math.max(
            Math.min(west, north),
            Math.min(Math.max(west, north), west + north - corner)
          );
          values[i] = guess + ((coded >>> 1) ^ -(coded & 1));
        }
      }
    }
    this.blocks.push({ start, size, values });
  }

  // Numbers of columns and rows of a plane, and how its pixels lie in the volume:
  // the first one, and the steps to the next column, row and plane.
  layout(plane) {
    const { width, height, depth } = this;
    const [sx, sy, sz] = this.spacing;
    if (plane === "axial") {
      return { axis: 2, count: depth, across: 0, down: 1, columns: width, rows: height,
               column: sx, row: sy, flip: false };
    }
    const side = plane === "coronal" ? 0 : 1;
    return { axis: 1 - side, count: side ? width : height, across: side, down: 2,
             columns: side ? height : width, rows: depth,
             column: side ? sy : sx, row: sz, flip: true };
  }

  // HU of a part of a plane; slices that are not decoded yet are black.
  plane(name, index, [left, top, right, bottom]) {
    const { axis, across, down, rows, flip } = this.layout(name);
    const columns = right - left;
    const hu = new Int16Array(columns * (bottom - top)).fill(-32768);
    const at = [0, 0, 0];
    at[axis] = index;
    const step = across === 0 ? 1 : this.width;
    for (let row = top; row < bottom; row += 1) {
      at[across] = left;
      at[down] = flip ? rows - 1 - row : row;
      const slice = this.slices[at[2]];
      if (!slice) continue;
      let source = at[1] * this.width + at[0];
      let target = (row - top) * columns;
      for (let column = 0; column < columns; column += 1, source += step, target += 1) {
        hu[target] = this.levels[slice[source]];
      }
    }
    for (const { start, size, values } of this.blocks) {
      const k = index - start[axis];
      if (k < 0 || k >= size[axis]) continue;
      const strides = [1, size[0], size[0] * size[1]];
      for (let j = 0; j < size[down]; j += 1) {
        const place = start[down] + j;
        const row = (flip ? rows - 1 - place : place) - top;
        if (row < 0 || row >= bottom - top) continue;
        for (let i = 0; i < size[across]; i += 1) {
          const column = start[across] + i - left;
          if (column < 0 || column >= columns) continue;
          hu[row * columns + column] =
            values[k * strides[axis] + j * strides[down] + i * strides[across]];
        }
      }
    }
    return hu;
  }

  // HU of a voxel and whether it is exact, or null.
  voxel(x, y, z) {
    for (const { start, size, values } of this.blocks) {
      const [i, j, k] = [x - start[0], y - start[1], z - start[2]];
      if (i >= 0 && j >= 0 && k >= 0 && i < size[0] && j < size[1] && k < size[2]) {
        return { hu: values[(k * size[1] + j) * size[0] + i], exact: true };
      }
    }
    const slice = this.slices[z];
    return slice && { hu: this.levels[slice[y * this.width + x]], exact: false };
  }
}
