import path from 'node:path';
import { fileURLToPath } from 'node:url';

import type { ClientInterceptors } from '@temporalio/client';
import type { InjectedSinks, WorkerInterceptors } from '@temporalio/worker';

/** Traces of one process, which go to a collector. */
export interface Tracing {
  /** For a client: what it starts begins a trace. Questions do not. */
  readonly client: ClientInterceptors;
  /** For a worker: workflows, but for clusters and fleets, and the activities of those that are traced. */
  readonly worker: {
    readonly interceptors: WorkerInterceptors;
    readonly sinks: InjectedSinks<never>;
  };
  /** Sends what was not sent yet. Never throws: a collector that is away costs traces only. */
  flush(): Promise<void>;
}

/** Longer than a collector nearby needs, and no reason to keep anybody waiting. */
const FLUSH_MS = 3_000;
/** Where Temporal's SDKs of all languages put the trace in the headers of their calls. */
const HEADER = '_tracer-data';

const workflowModule = fileURLToPath(
  new URL(`./workflow${path.extname(import.meta.url)}`, import.meta.url),
);

let started: Promise<Tracing | undefined> | undefined;

/**
 * OpenTelemetry's traces over Temporal's calls: from who starts a workflow through the workflow to its activities, in
 * both languages. Only where OpenTelemetry's own variable `OTEL_EXPORTER_OTLP_ENDPOINT` (or that for traces alone)
 * names a collector; undefined elsewhere. Its other variables (headers, time-outs) hold as well.
 *
 * @param service what the process is called, unless `OTEL_SERVICE_NAME` says otherwise
 */
export async function tracing(service: string): Promise<Tracing | undefined> {
  started ??= start(service);
  return started;
}

async function start(service: string): Promise<Tracing | undefined> {
  const { OTEL_EXPORTER_OTLP_ENDPOINT: all, OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: traces } =
    process.env;
  if (!all && !traces) return undefined;
  // Loaded only where they are used: a command line is to start at once.
  const { AsyncLocalStorageContextManager } = await import('@opentelemetry/context-async-hooks');
  const { OTLPTraceExporter } = await import('@opentelemetry/exporter-trace-otlp-proto');
  const { Resource } = await import('@opentelemetry/resources');
  const { BasicTracerProvider, BatchSpanProcessor } = await import('@opentelemetry/sdk-trace-base');
  const {
    OpenTelemetryActivityInboundInterceptor,
    OpenTelemetryWorkflowClientInterceptor,
    makeWorkflowExporter,
  } = await import('@temporalio/interceptors-opentelemetry');

  const name = process.env['OTEL_SERVICE_NAME'] || service;
  const resource = Resource.default().merge(new Resource({ 'service.name': name }));
  const spanProcessor = new BatchSpanProcessor(new OTLPTraceExporter());
  const provider = new BasicTracerProvider({ resource, spanProcessors: [spanProcessor] });
  provider.register({ contextManager: new AsyncLocalStorageContextManager().enable() });
  const starts = new OpenTelemetryWorkflowClientInterceptor();
  return {
    client: {
      workflow: [
        {
          start: async (input, next) => starts.start(input, next),
          startWithDetails: async (input, next) => starts.startWithDetails(input, next),
        },
      ],
    },
    worker: {
      interceptors: {
        workflowModules: [workflowModule],
        activity: [
          (context) => {
            const traced = new OpenTelemetryActivityInboundInterceptor(context);
            return {
              inbound: {
                execute: async (input, next) =>
                  HEADER in input.headers ? traced.execute(input, next) : next(input),
              },
            };
          },
        ],
      },
      sinks: { exporter: makeWorkflowExporter(spanProcessor, resource) } as never,
    },
    flush: async () => {
      const late = new Promise<void>((resolve) => {
        setTimeout(resolve, FLUSH_MS).unref();
      });
      await Promise.race([spanProcessor.forceFlush().catch(() => undefined), late]);
    },
  };
}
