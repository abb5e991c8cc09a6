/** One attack in a process of its own: `child.ts NAME GRPC ADMIN SEED`. It says when it begins, goes on until its standard input ends, and then says what it did. */
import { ATTACKS } from './all.ts';
import { Attacker } from './attacker.ts';

const [name, grpc, admin, seed] = process.argv.slice(2) as [string, string, string, string];
const attack = ATTACKS.find((one) => one.name === name);
if (attack === undefined) throw new Error(`no attack is named ${name}`);
const end = new AbortController();
process.stdin.on('end', () => end.abort()).resume();
/** For what is on its way; a flood of connections takes long to close. */
const STOP_MS = 500;
process.stdout.write('begun\n');
const attacker = new Attacker({ grpc, admin }, Number(seed), end.signal);
const over = new Promise<void>((resolve) => {
  end.signal.addEventListener('abort', () => setTimeout(resolve, STOP_MS));
});
await Promise.race([attack.run(attacker), over]);
process.stdout.write(`${JSON.stringify(attacker.tally)}\n`, () => process.exit());
