import common = require('@temporalio/common');

/**
 * Puts messages and stacks of errors into payloads, which are encrypted, where they would stand in the clear beside
 * them. The SDK loads it by its path, with `require`, and makes it a part of the bundle of workflows: so it is CommonJS.
 */
class EncodedFailures extends common.DefaultFailureConverter {
  readonly #plain = new common.DefaultFailureConverter();

  constructor() {
    super({ encodeCommonAttributes: true });
  }

  /** That a key is not there must be read by who does not have this process's key. It holds ids of keys and no more. */
  override errorToFailure(
    error: unknown,
    converter: common.PayloadConverter,
    context?: common.SerializationContext,
  ): common.ProtoFailure {
    return isKeyMismatch(error)
      ? this.#plain.errorToFailure(typed(error), converter, context)
      : super.errorToFailure(error, converter, context);
  }
}

/** An error of no kind of Temporal's has its name in no field. */
const typed = (error: Error): Error =>
  error instanceof common.ApplicationFailure
    ? error
    : common.ApplicationFailure.nonRetryable(error.message, 'KeyMismatch');

const isKeyMismatch = (error: unknown): error is Error =>
  error instanceof Error &&
  (error.name === 'KeyMismatch' ||
    (error as Partial<common.ApplicationFailure>).type === 'KeyMismatch');

export = { failureConverter: new EncodedFailures() };
