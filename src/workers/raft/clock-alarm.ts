import type { ClusterView } from '../../replica/types.ts';
import type { LogLine } from '../messages.ts';

/** Design section 2, log time: clocks of two nodes that differ by more are told of, in ms. */
const ALARM_MS = 1_000;
/** And no more once they differ by less. */
const QUIET_MS = 500;
/** A difference that stays is told of again after so many looks. */
const AGAIN_LOOKS = 600;

/** Says in the log which nodes' clocks differ from this one's. */
export class ClockAlarm {
  readonly #tell: (level: LogLine['level'], message: string, fields: LogLine['fields']) => void;
  /** By node: looks in a row at which its clock was off. */
  readonly #off = new Map<string, number>();

  constructor(tell: (level: LogLine['level'], message: string, fields: LogLine['fields']) => void) {
    this.#tell = tell;
  }

  /** About once a second. */
  look({ node: self, members }: Pick<ClusterView, 'node' | 'members'>): void {
    for (const node of [...this.#off.keys()])
      if (!members.some((member) => member.node === node)) this.#off.delete(node);
    for (const { node, clockOffsetMs } of members) {
      if (node === self || clockOffsetMs === null) continue;
      const looks = this.#off.get(node) ?? 0;
      const isOff = Math.abs(clockOffsetMs) > (looks === 0 ? ALARM_MS : QUIET_MS);
      const fields = { peer: node, offsetMs: Math.round(clockOffsetMs) };
      if (isOff && looks % AGAIN_LOOKS === 0) {
        this.#tell(
          'warn',
          'the clock of another node differs from that of this one: messages expire early or late',
          fields,
        );
      }
      if (!isOff && looks > 0)
        this.#tell('info', 'the clock of another node agrees with that of this one again', fields);
      if (isOff) this.#off.set(node, looks + 1);
      else this.#off.delete(node);
    }
  }
}
