// Gray values of compressed slices, and pictures of them in an HU window.

// HU by gray value, the inverse of the knots.
function huLevels([values, grays]) {
  return Int16Array.from({ length: 256 }, (_, gray) => {
    let k = 0;
    while (k < grays.length - 2 && gray > grays[k + 1]) k += 1;
    const share = (gray - grays[k]) / (grays[k + 1] - grays[k]);
    return Math.round(values[k] + share * (values[k + 1] - values[k]));
  });
}

// Whether the browser returns the pixels that were drawn; some return noise.
function returnsPixels(context) {
  context.fillStyle = "rgb(10, 100, 200)";
  context.fillRect(0, 0, 1, 1);
  const [r, g, b] = context.getImageData(0, 0, 1, 1).data;
  return Math.abs(r - 10) < 4 && Math.abs(g - 100) < 4 && Math.abs(b - 200) < 4;
}

// Draw HU in a window as an image of gray pixels.
function grayImage(hu, columns, [low, high]) {
  const image = new ImageData(columns, hu.length / columns);
  const pixels = new Uint32Array(image.data.buffer);
  const scale = 255 / (high - low);
  for (let i = 0; i < hu.length; i += 1) {
    const gray = Math.max(0, Math.min(255, Math.round((hu[i] - low) * scale)));
    pixels[i] = 0xff000000 | (gray << 16) | (gray << 8) | gray;
  }
  return image;
}
