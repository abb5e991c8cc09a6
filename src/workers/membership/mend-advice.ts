/** Why a member could not take out the node whose log is damaged. */
export interface Obstacle {
  /** As it said it. */
  readonly words: string;
  /** It does not take this node for one of the cluster, nor for anybody who may ask for that. */
  readonly isRefusal: boolean;
}

/**
 * What to do where the others did not take out `self` (NODE/INSTANCE). What loses something comes last and with its condition: `cluster recover` beside a
 * majority that lives makes a second cluster, and a forced removal may leave none.
 */
export function mendAdvice(self: string, { isRefusal }: Pick<Obstacle, 'isRefusal'>): string {
  if (!isRefusal) {
    return (
      'Start the others, and this node again: a majority of voters has to be up without it (`broker cluster status --address HOST:PORT` of one of them). ' +
      'Only if the logs of a majority are damaged or lost for ever, so that none can come back: docs/backup.md, "A cluster"'
    );
  }
  return (
    'They did not let this node ask, so somebody who may has to take it out: with this process stopped, and with a token that has `admin` (--token-file). ' +
    'First `broker cluster status --address HOST:PORT` of one of them, and then of the leader that it names: there `tolerates_now` has to be a number. ' +
    `Then \`broker cluster remove ${self} --address HOST:PORT\` of that leader, without --force; if that is refused, start the other voters first. ` +
    'Then put the data directory of this node aside, and start it on an empty one with --join (docs/cluster.md, "A damaged log"). ' +
    'With TLS between nodes (tls.ca, tls.peers) it does all of that by itself'
  );
}
