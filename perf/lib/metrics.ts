/** What a broker says of itself at /metrics. */

/** Sum of the samples of each metric, over its labels; 0 for one that is not there. */
export async function scrape(adminAddress: string, names: readonly string[]): Promise<number[]> {
  const response = await fetch(`http://${adminAddress}/metrics`);
  if (!response.ok) throw new Error(`/metrics answered ${response.status}`);
  const sums = new Map<string, number>();
  for (const line of (await response.text()).split('\n')) {
    const match = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{[^}]*\})? (\S+)/.exec(line);
    if (match !== null) sums.set(match[1] as string, (sums.get(match[1] as string) ?? 0) + Number(match[2]));
  }
  return names.map((name) => sums.get(name) ?? 0);
}
