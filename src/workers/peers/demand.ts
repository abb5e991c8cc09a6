import { assert } from '../../base/assert.ts';
import { slotOfHash, subjectHash } from '../../base/subject.ts';
import type { ShardLink } from '../front/shard-link.ts';
import { PEERS_HEADER, ToShard } from '../link.ts';
import type { InterestEvents } from './interest-set.ts';

interface Demanded {
  readonly subject: Buffer;
  readonly hash: number;
  peers: number;
}

/** What it needs of the links to the shards. */
export interface DemandRoutes {
  /** Null while the shard is being replaced, or the slot is on its way to another: it is told when it is there. */
  linkOf(hash: number): ShardLink | null;
  links(): readonly ShardLink[];
  touched(link: ShardLink): void;
}

const ALL = Buffer.alloc(0);

/** Which subjects some peer wants: told to the shard that owns each of them, and told again when that is another one. */
export class Demand implements InterestEvents {
  readonly #routes: DemandRoutes;
  readonly #demanded = new Map<string, Demanded>();
  /** Ended while no shard could be told. */
  readonly #untold = new Map<string, Demanded>();
  /** Peers that want all subjects. */
  #everything = 0;

  constructor(routes: DemandRoutes) {
    this.#routes = routes;
  }

  get size(): number {
    return this.#demanded.size;
  }

  began(key: string): void {
    const known = this.#demanded.get(key);
    if (known !== undefined) {
      known.peers += 1;
      return;
    }
    const subject = Buffer.from(key, 'latin1');
    const hash = subjectHash(subject, 0, subject.length);
    this.#demanded.set(key, { subject, hash, peers: 1 });
    this.#tell(this.#routes.linkOf(hash), hash, true, subject);
  }

  ended(key: string): void {
    const known = this.#demanded.get(key);
    assert(known !== undefined, 'a peer ends what it never began');
    known.peers -= 1;
    if (known.peers > 0) return;
    this.#demanded.delete(key);
    const link = this.#routes.linkOf(known.hash);
    if (link === null) this.#untold.set(key, known);
    else this.#tell(link, known.hash, false, known.subject);
  }

  everything(isOn: boolean): void {
    const before = this.#everything;
    this.#everything += isOn ? 1 : -1;
    if (before > 0 === this.#everything > 0) return;
    for (const link of this.#routes.links()) this.#tell(link, 0, isOn, ALL);
  }

  /** A new shard thread, which knows nothing. */
  attached(link: ShardLink): void {
    if (this.#everything > 0) this.#tell(link, 0, true, ALL);
    for (const { hash, subject } of this.#demanded.values()) {
      if (this.#routes.linkOf(hash) === link) this.#tell(link, hash, true, subject);
    }
    for (const [key, { hash }] of this.#untold) if (this.#routes.linkOf(hash) === link) this.#untold.delete(key);
  }

  holdSlots(): void {
    // Nothing is told of their subjects meanwhile: `linkOf` has no shard for them.
  }

  /** Subjects of these slots have a shard again, perhaps another. The old one forgets with the slots (shard/peer-batches.ts). */
  resumeSlots(slots: ReadonlySet<number>): void {
    for (const [key, { hash, subject }] of this.#untold) {
      if (!slots.has(slotOfHash(hash))) continue;
      this.#untold.delete(key);
      if (!this.#demanded.has(key)) this.#tell(this.#routes.linkOf(hash), hash, false, subject);
    }
    for (const { hash, subject } of this.#demanded.values()) {
      if (slots.has(slotOfHash(hash))) this.#tell(this.#routes.linkOf(hash), hash, true, subject);
    }
  }

  #tell(link: ShardLink | null, hash: number, isWanted: boolean, subject: Buffer): void {
    if (link === null) return;
    const { controlOutbox } = link;
    const at = controlOutbox.begin(ToShard.PEERS, PEERS_HEADER + subject.length);
    controlOutbox.view.setUint32(at, hash, true);
    controlOutbox.view.setUint32(at + 4, isWanted ? 1 : 0, true);
    controlOutbox.bytes.set(subject, at + PEERS_HEADER);
    controlOutbox.end();
    this.#routes.touched(link);
  }
}
