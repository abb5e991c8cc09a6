/** The keys of /metrics. A part of `SCHEMA`. */
import { integer } from './field.ts';

export const METRICS = {
  top_subjects: integer({
    min: 0,
    max: 32,
    default: 10,
    doc: 'Subjects that `broker_top_subject_messages_per_second` names: those that most is published to. 0 names none. Whoever can reach `admin.listen` sees the names.',
  }),
  series_max: integer({
    min: 500,
    max: 100_000,
    default: 2_000,
    doc: 'Most series of /metrics. Metrics that do not fit are left out whole, shards first, and `broker_metrics_left_out_series` says how many series are missing.',
  }),
};
