// Numbered boxes on a picture, in an SVG of the picture's size in pixels.
const SVG = "http://www.w3.org/2000/svg";
const LABEL_HEIGHT = 14;
const COVERED = 0.2;

function svgNode(name, attributes, text) {
  const node = document.createElementNS(SVG, name);
  Object.entries(attributes).forEach(([key, value]) => node.setAttribute(key, value));
  if (text !== undefined) node.textContent = text;
  return node;
}

// Find a place for each number where it covers no other, until they cover much of the picture;
// numbers without one are shown while the pointer is on their box.
function placeNumbers(boxes, width, height) {
  const taken = [];
  let area = 0;
  return boxes.map(({ id, x, y, w, h }) => {
    const size = 6 + 7 * String(id).length;
    const places = [
      [x, y - LABEL_HEIGHT], [x + w - size, y - LABEL_HEIGHT], [x, y + h], [x + w - size, y + h],
      [x - size, y], [x + w, y], [x - size, y + h - LABEL_HEIGHT], [x + w, y + h - LABEL_HEIGHT],
    ];
    const free = places.find(
      ([left, top]) =>
        area < COVERED * width * height && left >= 0 && top >= 0 && left + size <= width && top + LABEL_HEIGHT <= height &&
        taken.every(
          (one) =>
            left >= one.left + one.size || one.left >= left + size ||
            top >= one.top + LABEL_HEIGHT || one.top >= top + LABEL_HEIGHT
        )
    );
    const left = Math.max(0, Math.min(width - size, x));
    const top = y >= LABEL_HEIGHT ? y - LABEL_HEIGHT : Math.min(height - LABEL_HEIGHT, y + h);
    const place = free ? { left: free[0], top: free[1], size } : { left, top, size, crowded: true };
    if (free) {
      taken.push(place);
      area += size * LABEL_HEIGHT;
    }
    return place;
  });
}

class Overlay {
  constructor(svg) {
    this.svg = svg;
    this.boxes = [];
  }

  // Draw boxes { id, x, y, w, h } in pixels, the most important first, and other nodes above them.
  draw(boxes, width, height, others = []) {
    this.boxes = boxes;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    const places = placeNumbers(boxes, width, height);
    const groups = boxes.map((box, i) => {
      const { left, top, size, crowded } = places[i];
      const group = svgNode("g", { class: crowded ? "mark crowded" : "mark", "data-id": box.id });
      group.append(
        svgNode("rect", { class: "edge", x: box.x, y: box.y, width: box.w, height: box.h }),
        svgNode("rect", { class: "tag", x: left, y: top, width: size, height: LABEL_HEIGHT, rx: 3 }),
        svgNode("text", { x: left + size / 2, y: top + LABEL_HEIGHT - 3.5 }, box.id)
      );
      return group;
    });
    // The most important on top.
    this.svg.replaceChildren(...groups.reverse(), ...others);
  }

  // The id of the smallest box around a point, or null.
  at(x, y) {
    let found = null;
    for (const box of this.boxes) {
      const inside =
        x >= box.x - 3 && y >= box.y - 3 && x <= box.x + box.w + 3 && y <= box.y + box.h + 3;
      if (inside && (!found || box.w * box.h < found.w * found.h)) found = box;
    }
    return found && found.id;
  }
}
