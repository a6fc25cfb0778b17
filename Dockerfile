# The server alone, on a slim base. Both bases can be replaced: RUST_IMAGE needs Rust 1.90, a C compiler and a shell,
# BASE_IMAGE needs glibc and libgcc of the same age or newer, and no shell.
ARG RUST_IMAGE=rust:1-slim-bookworm
ARG BASE_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
WORKDIR /parlor
COPY . .
# Symbols stay, for backtraces. What the cache holds may be newer than the sources of this checkout, which is all that
# cargo would look at: touching them builds the server itself anew, and the dependencies only when they change.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/parlor/target,sharing=locked \
    touch src/lib.rs src/main.rs \
    && CARGO_PROFILE_RELEASE_DEBUG=none CARGO_PROFILE_RELEASE_STRIP=debuginfo \
       cargo build --release --locked --package parlor --bin parlor \
    && install -D target/release/parlor /image/usr/local/bin/parlor \
    && install -D -m 644 -t /image/usr/share/doc/parlor LICENSE-APACHE LICENSE-MIT

FROM ${BASE_IMAGE}
ARG VERSION=0.1.0
ARG REVISION=
LABEL org.opencontainers.image.title="Parlor" \
      org.opencontainers.image.description="A WebRTC signaling server on io_uring with a zero-copy relay core" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image /
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --start-interval=1s --retries=3 \
    CMD ["/usr/local/bin/parlor", "--healthcheck"]
ENTRYPOINT ["/usr/local/bin/parlor"]
