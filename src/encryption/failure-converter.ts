import {
  type ApplicationFailure,
  DefaultFailureConverter,
  type PayloadConverter,
  type ProtoFailure,
  type SerializationContext,
} from '@temporalio/common';

/**
 * Puts messages and stacks of errors into payloads, which are encrypted, where they would stand in the clear beside
 * them. Workflows load it by its path: it is part of their bundle.
 */
class EncodedFailures extends DefaultFailureConverter {
  readonly #plain = new DefaultFailureConverter();

  constructor() {
    super({ encodeCommonAttributes: true });
  }

  /** That a key is not there must be read by who does not have this process's key. It holds ids of keys and no more. */
  override errorToFailure(
    error: unknown,
    converter: PayloadConverter,
    context?: SerializationContext,
  ): ProtoFailure {
    return isKeyMismatch(error)
      ? this.#plain.errorToFailure(error, converter, context)
      : super.errorToFailure(error, converter, context);
  }
}

const isKeyMismatch = (error: unknown): boolean =>
  error instanceof Error &&
  (error.name === 'KeyMismatch' || (error as Partial<ApplicationFailure>).type === 'KeyMismatch');

export const failureConverter = new EncodedFailures();
