import { StartError } from '../start-error.ts';

/** Damage that recovery must not repair by forgetting: the node halts and says where it is. */
export class WalDamaged extends StartError {
  override name = 'WalDamaged';
  readonly path: string;
  /** Offset in the file, or -1 if the damage has no place. */
  readonly position: number;

  constructor(path: string, position: number, detail: string, options?: ErrorOptions) {
    const where = position < 0 ? path : `${path} at byte ${position}`;
    super(
      'RAFT_LOG_DAMAGED',
      `the Raft log is damaged: ${where}: ${detail}; nothing was changed. ` +
        'Restore the data directory from a backup, or empty it and let the node join again',
      options,
    );
    this.path = path;
    this.position = position;
  }
}
