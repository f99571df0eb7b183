# syntax=docker/dockerfile:1
# An image of `warpseek serve`; docs/how-to/server.md describes its use.

FROM rust:1.89-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --release --locked --bin warpseek \
    && cp target/release/warpseek /warpseek

FROM debian:bookworm-slim
# Folders that new volumes take their owner from.
RUN useradd --uid 10001 --no-create-home --home-dir /models warpseek \
    && install --directory --owner=warpseek --group=warpseek /data /models
COPY packaging/healthcheck /usr/local/bin/healthcheck
COPY --from=build /warpseek /usr/local/bin/warpseek

USER 10001
# The default index is /data/.warpseek. Downloaded models are kept in /models.
WORKDIR /data
ENV HF_HOME=/models/huggingface \
    WARPSEEK_CACHE_DIR=/models/cache \
    WARPSEEK_MODELS_DIR=/models \
    WARPSEEK_SERVE_HOST=0.0.0.0
VOLUME ["/data", "/models"]
EXPOSE 8080

# The first start downloads the model before the server listens.
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s CMD ["healthcheck"]

ENTRYPOINT ["warpseek"]
CMD ["serve"]
