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
        /// TLS: the certificate has expired.
        TlsExpired = "tls_expired",
        /// TLS: the certificate is not valid yet.
        TlsNotYetValid = "tls_not_yet_valid",
        /// TLS: the certificate is signed by none that is trusted.
        TlsUnknownIssuer = "tls_unknown_issuer",
        /// TLS: the certificate is for another name.
        TlsWrongName = "tls_wrong_name",
        /// TLS: the certificate is an authority's own.
        TlsAuthority = "tls_authority",
        /// TLS: the certificate is not for servers.
        TlsPurpose = "tls_purpose",
        /// TLS: the certificate is refused for another reason.
        TlsCertificate = "tls_certificate",
        /// The port does not speak TLS.
        TlsNone = "tls_none",
        /// TLS: no version in common.
        TlsVersion = "tls_version",
        /// TLS: no cipher suite, key exchange or signature in common.
        TlsParameters = "tls_parameters",
        /// TLS: the backend wants a client certificate.
        TlsClientCertificate = "tls_client_certificate",
        /// TLS: the backend does not offer the protocol inside it (ALPN).
        TlsAlpn = "tls_alpn",
        /// TLS: the backend does not know the name that was asked for.
        TlsUnknownName = "tls_unknown_name",
        /// TLS: the connection was closed in the handshake.
        TlsClosed = "tls_closed",
        /// TLS: the host trusts no certificates at all.
        TlsNoAuthorities = "tls_no_authorities",
        /// TLS: another failure of the session.
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
