// What the tests of this folder ask of a page.

// Elements that stick out of the window at the right, unless something around them scrolls.
function sticksOut() {
  const scrolling = (e) => ['auto', 'scroll', 'hidden'].includes(getComputedStyle(e).overflowX);
  const inside = (e) => {
    for (let parent = e.parentElement; parent; parent = parent.parentElement) if (scrolling(parent)) return true;
    return scrolling(e);
  };
  const right = (e) => {
    const box = e.getBoundingClientRect();
    return box.left + Math.max(box.width, e instanceof HTMLElement ? e.scrollWidth : 0);
  };
  return [...document.querySelectorAll('main *')]
    .filter((e) => right(e) > document.documentElement.clientWidth + 1 && !inside(e))
    .map((e) => `${e.tagName}.${e.className}: ${e.textContent.trim().slice(0, 60)}`)
    .slice(0, 5);
}

function parse(colour) {
  const numbers = colour.match(/[\d.]+/g).map(Number);
  return [...numbers.slice(0, 3), numbers.length > 3 ? numbers[3] : 1];
}

function over(top, under) {
  return [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
}

// relative luminance, WCAG 2
function luminance(colour) {
  const linear = colour.slice(0, 3).map((v) => (v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
}

// Texts whose contrast to what is behind them is below 4.5, or 3 for large ones; opacity counts.
function unreadable(root = document.body) {
  const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
  const found = new Set();
  for (let node = texts.nextNode(); node; node = texts.nextNode()) {
    const e = node.parentElement;
    const style = getComputedStyle(e);
    if (!node.textContent.trim() || !e.getClientRects().length) continue;
    const layers = [];
    const colour = parse(e.closest('svg') ? style.fill : style.color);
    for (let parent = e; parent; parent = parent.parentElement) {
      layers.unshift(parse(getComputedStyle(parent).backgroundColor));
      colour[3] *= Number(getComputedStyle(parent).opacity);
    }
    if (!colour[3]) continue; // shown when the mouse is over it
    const under = layers.reduce((below, top) => over(top, below), [255, 255, 255, 1]);
    const [dark, light] = [luminance(over(colour, under)), luminance(under)].sort((x, y) => x - y);
    const ratio = (light + 0.05) / (dark + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && style.fontWeight >= 700);
    const words = node.textContent.trim().slice(0, 40);
    if (ratio < (large ? 3 : 4.5)) found.add(`${e.tagName}.${e.className} ${ratio.toFixed(2)}: ${words}`);
  }
  return [...found].slice(0, 8);
}
