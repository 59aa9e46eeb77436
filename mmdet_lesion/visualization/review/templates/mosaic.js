// Slices around a candidate, which are decoded when they are needed.
const SMALLEST_THUMBNAIL = 46;

class Mosaic {
  constructor(candidate, gray, levels) {
    Object.assign(this, candidate);
    this.gray = gray;
    this.levels = levels;
    this.pictures = new Map();
  }

  // Decode the image of a candidate.
  static async decode(candidate, base64, levels) {
    const image = new Image();
    image.src = "data:image/webp;base64," + base64;
    await image.decode();
    const canvas = document.createElement("canvas");
    canvas.width = image.naturalWidth;
    canvas.height = image.naturalHeight;
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(image, 0, 0);
    const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
    const gray = new Uint8Array(canvas.width * canvas.height);
    for (let i = 0; i < gray.length; i += 1) gray[i] = data[4 * i];
    return new Mosaic(candidate, gray, levels);
  }

  // Size of a slice in mm.
  get extent() {
    return this.tile.map((side, axis) => side * this.pixel[axis]);
  }

  // A slice of the volume in an HU window, as a canvas.
  picture(z, range) {
    if (this.range !== range) {
      this.range = range;
      this.pictures.clear();
    }
    if (!this.pictures.has(z)) {
      const [width, height] = this.tile;
      const index = z - this.first;
      const stride = this.columns * width;
      const start = Math.floor(index / this.columns) * height * stride + (index % this.columns) * width;
      const hu = new Int16Array(width * height);
      for (let row = 0, target = 0; row < height; row += 1) {
        let source = start + row * stride;
        for (let column = 0; column < width; column += 1, source += 1, target += 1) {
          hu[target] = this.levels[this.gray[source]];
        }
      }
      const canvas = document.createElement("canvas");
      [canvas.width, canvas.height] = [width, height];
      canvas.getContext("2d").putImageData(grayImage(hu, width, range), 0, 0);
      this.pictures.set(z, canvas);
    }
    return this.pictures.get(z);
  }

  // Draw a slice and its boxes into a rectangle of a canvas, as large as it fits.
  draw(context, z, range, [left, top, width, height], { boxes, line }) {
    const [across, down] = this.extent;
    const scale = Math.min(width / across, height / down);
    const x = left + (width - across * scale) / 2;
    const y = top + (height - down * scale) / 2;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.picture(z, range), x, y, across * scale, down * scale);
    if (!boxes) return;
    const [sx, sy] = this.pixel.map((side) => side * scale);
    const frame = ([slice, x1, y1, x2, y2], color) => {
      if (slice !== z) return;
      context.strokeStyle = color;
      context.lineWidth = line;
      // Around the pixels of the box, so that the line covers none of them.
      const half = line / 2;
      context.strokeRect(
        x + x1 * sx - half, y + y1 * sy - half,
        (x2 - x1) * sx + line, (y2 - y1) * sy + line
      );
    };
    context.save();
    context.beginPath();
    context.rect(x, y, across * scale, down * scale);
    context.clip();
    this.known.forEach((box) => frame(box, "#58c4ff"));
    this.boxes.forEach((box) => frame(box, "#ffb000"));
    context.restore();
  }

  // Columns and rows of thumbnails of all slices in a strip of a width.
  thumbnails(width) {
    const [across, down] = this.extent;
    const rows = Math.ceil((this.count * SMALLEST_THUMBNAIL) / width);
    const columns = Math.ceil(this.count / rows);
    const side = Math.min(width / columns, 120);
    return { columns, rows, side, height: Math.min(side, (side * down) / across) };
  }
}

// The last decoded mosaics; the next one is decoded in advance.
class Mosaics {
  constructor(text, levels, limit) {
    this.text = text;
    this.levels = levels;
    this.limit = limit;
    this.kept = new Map();
  }

  get(candidate) {
    const { id, image: [start, end] } = candidate;
    const found =
      this.kept.get(id) || Mosaic.decode(candidate, this.text.slice(start, end), this.levels);
    // The last used is the last of the map.
    this.kept.delete(id);
    this.kept.set(id, found);
    if (this.kept.size > this.limit) this.kept.delete(this.kept.keys().next().value);
    return found;
  }
}
