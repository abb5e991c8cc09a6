/** What the commands ask of a broker. client-connection.ts answers with the client. Every method fails with a CliError. */
import type { Message, NodeStatus, PublishOptions, Start, SubjectInfo } from '../client/index.ts';

export interface PublishInput {
  readonly subject: string;
  readonly body: Uint8Array;
  readonly options: Pick<PublishOptions, 'headers' | 'expirationSeconds' | 'producer'>;
}

export interface Connection {
  /** Resolves with the id once the message is durable. */
  publish(input: PublishInput): Promise<number>;
  fetch(subject: string, id: number): Promise<Message>;
  /** Ends without an error at an interrupt. */
  subscribe(subjects: readonly string[], start: Start, broadcasts: boolean): AsyncIterable<Message>;
  status(): Promise<NodeStatus>;
  /** Page by page, in the broker's order. */
  listSubjects(prefix: string): AsyncIterable<SubjectInfo>;
  subjectInfo(subject: string): Promise<SubjectInfo>;
  /** Gives up all ids below `first`. */
  trim(subject: string, first: number): Promise<SubjectInfo>;
  close(): Promise<void>;
}
