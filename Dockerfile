# fnhost alone: the program and the libraries that it is linked with. No Node, no shell, no package manager.
#
#   docker build -t fnhost:0.1.0 .
#
# A project is mounted at /project or built in, as the Dockerfile that `fnhost init` writes does. (`fnhost image` makes
# an image of a project without Docker.) Nothing but /data is written to, so the root may be read-only.

# With Rust 1.95 or newer, on a Debian that scripts/setup knows.
ARG RUST=docker.io/library/rust:1.95-bookworm

# Leaves /system and /owned. If you have them already, made by scripts/image-root in a directory DIR, nothing is compiled:
#
#   docker build --build-context program=DIR -t fnhost:0.1.0 .
FROM ${RUST} AS program
WORKDIR /src
COPY . .
# The crates below fnhost take a quarter of an hour, so they are kept, outside the image, for the next build.
RUN --mount=type=cache,target=/root/.cache/fnhost --mount=type=cache,target=/usr/local/cargo/registry \
    scripts/dist && scripts/image-root dist/fnhost /

FROM scratch
COPY --from=program /system /
COPY --from=program --chown=65532:65532 /owned /
USER 65532:65532
WORKDIR /project
VOLUME /data
ENV HOME=/data FNHOST_DATA_DIR=/data FNHOST_HOST=0.0.0.0 PORT=4001
EXPOSE 4001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s CMD ["/usr/bin/fnhost", "healthcheck"]
ENTRYPOINT ["/usr/bin/fnhost"]
CMD ["serve"]
