//! The results of probes.

crate::codes! {
    /// The result of a probe. In `last_probe_code` of a backend and in `probe_code` of an event.
    ProbeCode {
        /// It passed.
        Pass = "pass",
        /// An HTTP status answered; `expect` and `fail_fast` decide what it means.
        Status = "status",
        /// No answer within `timeout`.
        Timeout = "timeout",
        /// The connection was refused.
        ConnectionRefused = "connection_refused",
        /// The connection was reset.
        ConnectionReset = "connection_reset",
        /// The host or its network cannot be reached.
        HostUnreachable = "host_unreachable",
        /// Another error of the connection.
        Io = "io",
        /// The answer is no valid HTTP.
        NotHttp = "not_http",
        /// The connection was closed before the response.
        ClosedEarly = "closed_early",
        /// The response ended early.
        EndedEarly = "ended_early",
        /// The body lacks `expect_body`.
        Body = "body",
        /// The request cannot be made.
        Request = "request",
        /// The TLS session failed.
        Tls = "tls",
        /// HTTP/2 failed.
        Http2 = "http2",
        /// No gRPC server answers like this.
        NotGrpc = "not_grpc",
        /// A gRPC status other than `OK`.
        GrpcStatus = "grpc_status",
        /// The health service does not say `SERVING`.
        NotServing = "not_serving",
        /// A recording has no code for it.
        Unknown = "unknown",
    }
}
