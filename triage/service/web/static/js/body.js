// A CT without the air around the body, and coarser where there is no graphics card: there each voxel
// costs half a microsecond before anything is seen.

const BODY_HU = -400; // what belongs to the body, or the table
const MARGIN = 4; // voxels
const INT16 = 4; // datatype, NIfTI-1
const AT = { dim: 40, datatype: 70, pixdim: 76, start: 108, slope: 112, quatern: 268, rows: [280, 296, 312] };

// Takes and gives a NIfTI-1 file (.nii.gz as a Blob). What is no plain volume of HU stays as it is.
// `step`: so many columns and rows become one, their mean.
export async function bodyOnly(blob, step = 1) {
  const bytes = await new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const head = new DataView(bytes);
  const slope = head.getFloat32(AT.slope, true);
  if (head.getInt16(AT.datatype, true) !== INT16 || (slope !== 0 && slope !== 1 && !Number.isNaN(slope))) return new Blob([bytes]);
  const [nx, ny, nz] = [1, 2, 3].map((k) => head.getInt16(AT.dim + 2 * k, true));
  const start = head.getFloat32(AT.start, true);
  const hu = new Int16Array(bytes, start, nx * ny * nz);
  const { x0, x1, y0, y1 } = box(hu, nx, ny, nz);
  const [width, height] = [Math.floor((x1 - x0) / step), Math.floor((y1 - y0) / step)];
  const out = new Int16Array(width * height * nz);
  let to = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++, to++) {
        let sum = 0;
        for (let k = 0; k < step * step; k++) {
          sum += hu[(z * ny + y0 + y * step + Math.floor(k / step)) * nx + x0 + x * step + (k % step)];
        }
        out[to] = Math.round(sum / (step * step));
      }
    }
  }
  relocate(head, [width, height], [x0 + (step - 1) / 2, y0 + (step - 1) / 2], step);
  return new Blob([bytes.slice(0, start), out]);
}

// Size and place of what was cut out: voxel (0, 0, z) lies where `first` lay.
function relocate(head, size, first, step) {
  size.forEach((n, axis) => {
    head.setInt16(AT.dim + 2 + 2 * axis, n, true);
    const voxel = AT.pixdim + 4 + 4 * axis;
    head.setFloat32(voxel, head.getFloat32(voxel, true) * step, true);
  });
  AT.rows.forEach((row, k) => {
    const ways = [0, 1].map((axis) => head.getFloat32(row + 4 * axis, true));
    const moved = ways[0] * first[0] + ways[1] * first[1];
    ways.forEach((way, axis) => head.setFloat32(row + 4 * axis, way * step, true));
    for (const place of [row + 12, AT.quatern + 4 * k]) {
      head.setFloat32(place, head.getFloat32(place, true) + moved, true);
    }
  });
}

// Columns and rows that are not air in every slice.
function box(hu, nx, ny, nz) {
  let [x0, x1, y0, y1] = [nx, -1, ny, -1];
  let at = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, at++) {
        if (hu[at] <= BODY_HU) continue;
        if (x < x0) x0 = x;
        if (x > x1) x1 = x;
        if (y < y0) y0 = y;
        if (y > y1) y1 = y;
      }
    }
  }
  if (x1 < 0) return { x0: 0, x1: nx, y0: 0, y1: ny };
  const up = (value, limit) => Math.min(limit, value + MARGIN + 1);
  return { x0: Math.max(0, x0 - MARGIN), x1: up(x1, nx), y0: Math.max(0, y0 - MARGIN), y1: up(y1, ny) };
}
