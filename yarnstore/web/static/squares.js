// Areas side by side that are as square as possible: the picture of what fills the disk.

/** Places for shares that are sorted, the largest first, and sum to 1. */
export function squares(shares, width, height) {
  const places = [];
  let box = { x: 0, y: 0, width, height };
  let row = [];
  const areas = shares.map((each) => each * width * height);
  const side = () => Math.min(box.width, box.height) || 1;
  const sum = (list) => list.reduce((total, each) => total + each, 0);
  const worst = (list) => {
    const all = sum(list);
    return Math.max(...list.map((each) => Math.max(side() ** 2 * each / all ** 2, all ** 2 / (side() ** 2 * each))));
  };
  const lay = () => {
    const all = sum(row);
    const thick = all / side();
    let at = 0;
    for (const each of row) {
      const long = each / thick;
      places.push(box.width >= box.height
        ? { x: box.x, y: box.y + at, width: thick, height: long }
        : { x: box.x + at, y: box.y, width: long, height: thick });
      at += long;
    }
    box = box.width >= box.height
      ? { ...box, x: box.x + thick, width: Math.max(0, box.width - thick) }
      : { ...box, y: box.y + thick, height: Math.max(0, box.height - thick) };
    row = [];
  };
  for (const area of areas) {
    if (row.length && worst([...row, area]) > worst(row)) lay();
    row.push(area);
  }
  if (row.length) lay();
  return places;
}
