// The service of echo.proto, for both of its sides.

import grpc from '@grpc/grpc-js';
import loader from '@grpc/proto-loader';

const definition = loader.loadSync(new URL('echo.proto', import.meta.url).pathname, { defaults: true, longs: Number });

export const { Echo } = grpc.loadPackageDefinition(definition).hopgate.test;

/** Larger than what gRPC takes by itself, 4 MiB. */
export const options = { 'grpc.max_receive_message_length': 64 << 20, 'grpc.max_send_message_length': 64 << 20 };

export { grpc };
