/** Runs in the page: what a reader by ear or with weak eyes would miss. Plain JavaScript in a string, so that no type of a browser is needed here. */
export const accessibilityFaults = `(() => {
  const faults = [];
  const seen = (element) => element.getClientRects().length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)].filter(seen);
  const what = (element) => element.outerHTML.slice(0, 80);
  if (document.documentElement.lang === '') faults.push('no language');
  if (document.title === '') faults.push('no title');
  if (all('h1').length !== 1) faults.push(all('h1').length + ' headings of level 1');
  let level = 0;
  for (const heading of all('h1, h2, h3, h4')) {
    const next = Number(heading.tagName[1]);
    if (next > level + 1) faults.push('a level of headings is left out: ' + what(heading));
    level = next;
  }
  for (const landmark of ['main', 'nav', 'header']) if (all(landmark).length !== 1) faults.push('not one ' + landmark);
  for (const nav of all('nav')) if (!nav.hasAttribute('aria-label')) faults.push('a menu without a name');
  for (const field of all('input, select, textarea')) {
    if (field.labels.length === 0 && !field.hasAttribute('aria-label')) faults.push('no label: ' + what(field));
  }
  for (const one of all('a, button, [role=img], progress')) {
    if ((one.textContent + (one.getAttribute('aria-label') ?? '')).trim() === '') faults.push('no name: ' + what(one));
  }
  for (const link of all('a')) if (!link.hasAttribute('href')) faults.push('a link that leads nowhere: ' + what(link));
  for (const table of all('main table')) {
    if (table.caption === null) faults.push('a table without a caption');
    if (table.querySelectorAll('th[scope=col]').length === 0) faults.push('a table without titles');
  }
  for (const one of document.querySelectorAll('[tabindex]')) if (one.tabIndex > 0) faults.push('an order of its own: ' + what(one));
  for (const one of document.querySelectorAll('[id]')) {
    if (document.querySelectorAll('#' + CSS.escape(one.id)).length > 1) faults.push('an id twice: ' + one.id);
  }
  for (const one of document.querySelectorAll('[for], [aria-labelledby]')) {
    const id = one.getAttribute('for') ?? one.getAttribute('aria-labelledby');
    if (document.getElementById(id) === null) faults.push('refers to nothing: ' + what(one));
  }
  const parts = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => {
    const [r, g, b] = parts(colour).map((part) => part / 255).map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if ((parts(colour)[3] ?? 1) === 1) return colour;
    }
    return 'rgb(255, 255, 255)';
  };
  for (const element of all('body *')) {
    const hasText = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim() !== '');
    if (!hasText || element.matches(':disabled, option, noscript')) continue;
    const [a, b] = [light(getComputedStyle(element).color), light(ground(element))].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05);
    if (contrast < 4.5) faults.push('contrast ' + contrast.toFixed(1) + ': ' + what(element));
  }
  for (const one of all('a.button, button, nav a, input:not([type=radio]), select')) {
    const { width, height } = one.getBoundingClientRect();
    if (width < 24 || height < 24) faults.push('smaller than 24 px: ' + what(one));
  }
  return faults;
})()`;
