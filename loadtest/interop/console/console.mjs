// Works with the console as operators do, in Chromium: every page wide and at 390 px, by keyboard, and two operators at once.
// Arguments: address, two operators' tokens, a reader's token, the folder for pictures (or -), the member's DID.
// Prints a row for each thing that was looked at; ends with 1 if one was not as it should be.
import AxeBuilder from '@axe-core/playwright';
import { chromium } from 'playwright-core';

const [base, anna, boris, reader, pictures, did] = process.argv.slice(2);
const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox'] });
let wrong = 0;
let rows = 0;
const row = (what, seen, ok) => {
  rows += 1;
  wrong += ok ? 0 : 1;
  console.log(`${ok ? 'ok   ' : 'WRONG'} ${what}: ${seen}`);
};

const said = [];
async function operator(token, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.on('console', message => { if (message.type() === 'error' || message.type() === 'warning') said.push(`${page.url()}: ${message.text()}`); });
  page.on('pageerror', error => said.push(`${page.url()}: ${error.message}`));
  await page.goto(`${base}/queue`);
  if (token) {
    await page.fill('#token', token);
    await page.click('button');
    await page.waitForURL(`${base}/queue`);
  }
  return page;
}

// To sign in.
const stranger = await operator(null);
row('a stranger is led to sign in', stranger.url(), stranger.url().startsWith(`${base}/login?to=`));
await stranger.fill('#token', 'twop_not-one');
await stranger.click('button');
row('a wrong token', await stranger.innerText('.notice'), (await stranger.innerText('.notice')).includes('not good'));

const one = await operator(anna);
row('signed in, and back where it was wanted', one.url(), one.url() === `${base}/queue`);

// Every page.
const first = async (page, path, selector) => { await page.goto(base + path); return page.getAttribute(selector, 'href'); };
const climb = await first(one, '/warmup', 'a.grid-cell');
const message = await first(one, '/queue', 'tbody a.code');
const action = await first(one, '/actions', 'tbody td.n a');
const pages = {
  overview: '/', warmup: '/warmup', climb, plans: '/plans', plan: '/plans/gentle', sources: '/sources', queue: '/queue', message,
  sites: '/sites', found: '/sites?find=big', site: '/sites/big.test', shaping: '/shaping?domain=big.test', actions: '/actions', action, members: '/members', member: `/members/${did}`,
  replies: '/replies', audit: '/audit',
};
for (const [name, path] of Object.entries(pages)) {
  for (const [kind, width, colorScheme] of [['wide', 1280, 'light'], ['phone', 390, 'dark']]) {
    await one.setViewportSize({ width, height: 860 });
    await one.emulateMedia({ colorScheme });
    const answer = await one.goto(base + path);
    const over = await one.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    const axe = await new AxeBuilder({ page: one }).analyze();
    const serious = axe.violations.filter(it => ['serious', 'critical'].includes(it.impact));
    const words = serious.map(it => `${it.id} (${it.nodes[0].target})`).join(', ') || 'nothing serious';
    row(`${name}, ${kind}`, `${answer.status()}, wider than the window by ${Math.max(over, 0)}, axe: ${words}`,
      answer.status() === 200 && over <= 0 && serious.length === 0);
    if (pictures !== '-' && (kind === 'wide' || name === 'overview')) {
      await one.screenshot({ path: `${pictures}/${name}${kind === 'phone' ? '-phone' : ''}.png`, fullPage: false });
    }
  }
}
await one.setViewportSize({ width: 1280, height: 860 });
await one.emulateMedia({ colorScheme: 'light' });

// By keyboard.
await one.goto(`${base}/members`);
await one.keyboard.press('Tab');
await one.keyboard.press('Enter');
const focus = await one.evaluate(() => document.activeElement.id);
row('the first tab stop skips to the content', focus, focus === 'main');

// The queue's first page.
const took = [];
for (let i = 0; i < 9; i += 1) {
  await one.goto(`${base}/queue`);
  took.push(await one.evaluate(() => { const it = performance.getEntriesByType('navigation')[0]; return it.domContentLoadedEventEnd - it.startTime; }));
}
took.sort((a, b) => a - b);
const listed = await one.locator('tbody tr').count();
row('first page of the queue', `${listed} rows, median ${took[4].toFixed(0)} ms, slowest ${took[8].toFixed(0)} ms (300)`, listed === 100 && took[4] < 300);
const before = await one.innerText('tbody tr:last-child th');
await one.click('text=Next 100');
const after = await one.innerText('tbody tr:first-child th');
row('the next page goes on', `${before} then ${after}`, after > before);

// A plan: what is wrong with it by line while it is written, simulated, applied, undone.
await one.goto(`${base}/plans/gentle`);
const original = await one.inputValue('#text');
await one.fill('#text', original.replace('hours = 8', 'hours = "eight"'));
await one.waitForSelector('#problems .error-line');
const problem = await one.innerText('#problems');
row('a mistake is told by line while it is written', problem.trim(), /Line \d+/.test(problem));
await one.fill('#text', original.replace('stages = [50,', 'stages = [60,'));
await one.waitForSelector('#problems p.notice');
await one.click('text=Check and simulate');
await one.waitForSelector('#simulation svg');
const sides = await one.locator('#simulation tbody tr').count();
row('simulated beside the plan that holds', `${sides} plans: ${(await one.innerText('#simulation p')).trim()}`, sides === 2);
if (pictures !== '-') { await one.screenshot({ path: `${pictures}/simulation.png`, fullPage: true }); }
await one.fill('#why', 'slower at first');
await one.click('text=Apply');
await one.waitForURL(/done=applied/);
row('and the page says so', await one.innerText('main > [role=status]'), (await one.innerText('main > [role=status]')).includes('applied'));
const kept = await one.inputValue('#text');
row('applied', (await one.innerText('p.lead')).split('.')[0], kept.includes('stages = [60,'));

// Two operators: the second is told what changed, and nothing is lost.
const two = await operator(boris);
await two.goto(`${base}/plans/gentle`);
await one.goto(`${base}/plans/gentle`);
await two.fill('#text', kept.replace('burst = 20', 'burst = 30'));
await two.fill('#why', 'bursts are longer here');
await two.click('text=Apply');
await two.waitForURL(/done=applied/);
await one.fill('#text', kept.replace('burst = 20', 'burst = 5'));
await one.fill('#why', 'bursts hurt');
said.length = 0;
await one.click('text=Apply');
await one.waitForSelector('[role=alert]');
const told = await one.innerText('main');
row('the second operator is told who changed what', told.split('\n').slice(0, 2).join(' '), told.includes('boris') && told.includes('faster'));
// The browser itself reports the status of that answer.
said.splice(0, said.length, ...said.filter(it => !it.includes('412')));
await one.goto(`${base}/plans/gentle`);
row('and what the first one did is still there', 'burst = 30', (await one.inputValue('#text')).includes('burst = 30'));
await one.click('summary:has-text("Undo")');
await one.fill('details[open] input[name=why]', 'not needed after all');
await one.click('details[open] button');
await one.waitForURL(/done=undone/);
row('undone', await one.innerText('main > [role=status]'), (await one.inputValue('#text')).includes('burst = 20'));

// Sites are found, and a limit is set, applied and undone.
await one.goto(`${base}/sites`);
await one.fill('form[aria-label=Sites] input[name=find]', 'big');
await one.click('form[aria-label=Sites] button');
const site = one.locator('[aria-label=Sites] tbody tr th a', { hasText: 'big.test' });
row('a site is found by a part of its name', await site.first().innerText(), await site.count() === 1);
await site.first().click();
await one.click('text=Set a limit for this domain');
await one.fill('#text', '[[shape]]\ndomain = "big.test"\nconnections = "three"\n');
await one.waitForSelector('#problems .error-line');
row('a mistake in shaping is told by line', (await one.innerText('#problems')).trim(), /Line 3/.test(await one.innerText('#problems')));
await one.fill('#text', '[[shape]]\ndomain = "big.test"\nconnections = 3\n');
await one.waitForSelector('#problems p.notice');
await one.fill('#why', 'they asked');
await one.click('text=Apply');
await one.waitForURL(/done=applied/);
row('shaping is applied', await one.innerText('main > [role=status]'), (await one.inputValue('#text')).includes('connections = 3'));
await one.goto(`${base}/sites/big.test`);
row('and the site shows it with its layer', 'kept:3', (await one.innerText('main')).includes('kept:3'));
await one.goto(`${base}/shaping`);
await one.click('summary:has-text("Undo")');
await one.fill('details[open] input[name=why]', 'not needed after all');
await one.click('details[open] button');
await one.waitForURL(/done=undone/);
row('and undone', await one.innerText('main > [role=status]'), (await one.inputValue('#text')) === '');

// A message that was not taken shows what was said.
await one.goto(`${base}/queue?domain=odd.test`);
const odd = await one.getAttribute('tbody a.code', 'href');
await one.goto(base + odd);
row('what was last said is shown', (await one.innerText('pre.dialogue')).split('\n')[0], (await one.innerText('pre.dialogue')).includes('450 4.2.1'));

// An automatic action is cancelled.
await one.goto(base + action);
await one.click('summary:has-text("Cancel it")');
await one.fill('details[open] input[name=why]', 'the host is back');
await one.click('details[open] button');
await one.waitForSelector('text=It does not run any more');
row('an automatic action is cancelled', await one.innerText('tbody tr:last-child'), true);

// A member is suspended and resumed.
await one.goto(`${base}/members/${did}`);
for (const [verb, wanted] of [['Suspend', 'suspended'], ['Resume', 'may send']]) {
  await one.click(`summary:has-text("${verb}")`);
  await one.fill('details[open] input[name=why]', `${verb} for a test`);
  await one.click('details[open] button');
  await one.waitForSelector(`.lead .state:has-text("${wanted}")`);
  row(`${verb} a member`, await one.innerText('p.lead'), true);
}
await one.goto(`${base}/audit`);
const audit = await one.innerText('main');
row('all of it is in the audit', `${await one.locator('tbody tr').count()} rows`, ['slower at first', 'the host is back', 'Suspend for a test'].every(why => audit.includes(why)));

// Live: another operator's deed shows without a reload.
await one.goto(base);
const queued = () => one.locator('.tile', { hasText: 'In the queue' }).locator('small').innerText();
const heldBefore = await queued();
await two.goto(base + message);
await two.click('summary:has-text("Hold")');
await two.fill('details[open] input[name=why]', 'to look at');
await two.click('details[open] button');
await one.waitForFunction(before => {
  const tile = [...document.querySelectorAll('.tile')].find(it => it.innerText.includes('In the queue'));
  return tile && !tile.innerText.includes(before);
}, heldBefore);
row('the overview follows without a reload', `${heldBefore} then ${await queued()}`, true);

// A reader.
const three = await operator(reader);
await three.goto(`${base}/members/${did}`);
const forms = await three.locator('main form[method=post]').count();
row('a reader has nothing to press', `${forms} forms`, forms === 0);
await three.click('text=Sign out');
await three.waitForURL(`${base}/login`);
await three.goto(`${base}/queue`);
row('signed out', three.url(), three.url().startsWith(`${base}/login`));

row('what the browser complained of', said.join(' | ') || 'nothing', said.length === 0);
console.log(`${rows} rows, ${wrong} wrong`);
await browser.close();
process.exit(wrong === 0 ? 0 : 1);
