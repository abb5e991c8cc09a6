import type { Block } from './transcript.ts';

/**
 * What a transcript must show, written by a person among the comments of a block, so that `--rewrite`, which records
 * whatever happens, cannot record a defect:
 *
 *     # seen: TEXT     some line of this block's output contains TEXT
 *     # never: TEXT    no line of it does
 */
const CLAIM = /^# (seen|never): (.+)$/;

/** Claims of the blocks that do not hold, each as one line. */
export function findBrokenClaims(blocks: readonly Block[]): string[] {
  const broken: string[] = [];
  for (const { comment, command, expected } of blocks) {
    for (const line of comment) {
      const [, kind, text = ''] = CLAIM.exec(line) ?? [];
      const isShown = expected.split('\n').some((shown) => shown.includes(text));
      if (kind !== undefined && isShown !== (kind === 'seen')) {
        broken.push(`"${command}" must ${kind === 'seen' ? '' : 'not '}show: ${text}`);
      }
    }
  }
  return broken;
}

export function countClaims(blocks: readonly Block[]): number {
  return blocks.flatMap((block) => block.comment).filter((line) => CLAIM.test(line)).length;
}
