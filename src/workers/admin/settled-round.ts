import type { ConsumerReader } from '../front/consumer-reader.ts';
import type { ConsumerStream } from '../front/consumer-stream.ts';
import type { PositionAsks } from '../front/position-asks.ts';
import type { ShardLink } from '../front/shard-link.ts';
import type { SubjectGroup } from '../front/subject-group.ts';
import type { Subscription } from '../front/subscription.ts';
import { visitInSlices } from './slices.ts';

/** Subjects that a shard is asked for at a time: the ring that the question takes is also that of fetches. */
const ASK_SUBJECTS = 1_024;
/** A shard that has not answered after this time, in ms, is waited for no longer: what it said before stands. */
const WAIT_MS = 1_000;

export type OpenDelivery = Subscription | ConsumerReader<ConsumerStream>;
export type OpenGroup = SubjectGroup<OpenDelivery>;

/** Asks the shards once how far each subject with subscriptions is settled, and keeps that with its group. Resolves when all have said so. */
export async function learnSettled(
  groups: Iterable<OpenGroup>,
  links: readonly ShardLink[],
  asks: PositionAsks,
): Promise<void> {
  const byShard = new Map<number, OpenGroup[]>(links.map(({ shard }) => [shard, []]));
  await visitInSlices(groups, (group) => byShard.get(group.shard)?.push(group));
  const isOver = { value: false };
  const learned = Promise.all(links.map((link) => learnOf(link, byShard.get(link.shard) ?? [], asks, isOver)));
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, WAIT_MS);
  });
  await Promise.race([learned, late]);
  clearTimeout(timer);
  isOver.value = true;
}

/** One question after another, so that a round has never more than one on the ring; none where earlier ones wait for room on it. */
async function learnOf(
  link: ShardLink,
  groups: readonly OpenGroup[],
  asks: PositionAsks,
  isOver: { readonly value: boolean },
): Promise<void> {
  for (let from = 0; from < groups.length && !isOver.value && !link.controlOutbox.blocked; from += ASK_SUBJECTS) {
    const asked: OpenGroup[] = [];
    const members: number[] = [];
    for (const group of groups.slice(from, from + ASK_SUBJECTS)) {
      const member = representative(group);
      // It has ended meanwhile, or its slot has moved.
      if (member === undefined || group.shard !== link.shard) continue;
      asked.push(group);
      members.push(member);
    }
    if (members.length === 0) continue;
    await new Promise<void>((resolve) => {
      asks.ask(
        link,
        members,
        (index, _head, settled) => {
          const group = asked[index];
          if (group !== undefined && settled >= 0) group.settled = settled;
        },
        resolve,
      );
    });
  }
}

/** The shard knows a subject by its subscriptions; one whose start is fixed it surely does. */
function representative({ members }: OpenGroup): number | undefined {
  let first: number | undefined;
  for (const { id, window } of members) {
    if (window !== null) return id;
    first ??= id;
  }
  return first;
}
