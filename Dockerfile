# The broker's image: docs/docker.md. Any other name of the same base, a digest too: --build-arg NODE_IMAGE=…
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS base
ENV npm_config_engine_strict=true npm_config_audit=false npm_config_fund=false npm_config_update_notifier=false
WORKDIR /app
COPY package.json package-lock.json .npmrc ./

# Of what is for development only the compiler, in the versions of the lock file: all of it would be half a gigabyte more.
FROM base AS build
RUN node -e 'const { devDependencies: all, optionalDependencies: _, ...rest } = require("./package.json"); \
    const devDependencies = { "@types/node": all["@types/node"], typescript: all.typescript }; \
    fs.writeFileSync("package.json", JSON.stringify({ ...rest, devDependencies }))' \
  && npm install --ignore-scripts
COPY tsconfig.json tsconfig.build.json ./
COPY src ./src
RUN npm run build && find dist -name '*.d.ts' -delete

# What is optional is Node itself (the base has it) and a native part of msgpackr. Types and source maps of others are two thirds of the files.
FROM base AS modules
RUN npm ci --omit=dev --omit=optional --ignore-scripts \
  && find node_modules -type f \( -name '*.ts' -o -name '*.mts' -o -name '*.cts' -o -name '*.map' -o -name '*.bare' \
    -o -name '*.md' ! -iname 'licen[sc]e*' \) -delete \
  && rm -r node_modules/.bin node_modules/.package-lock.json && find node_modules -type d -empty -delete

# Node, the libraries that it is linked with, a user, and nothing else: no shell, no package manager.
FROM base AS root
RUN mkdir -p /root-fs/etc /root-fs/tmp /root-fs/usr/local/bin /root-fs/app /empty && chmod 1777 /root-fs/tmp \
  && cp -L --parents /usr/local/bin/node /root-fs/ \
  && node -e 'console.log(process.report.getReport().sharedObjects.filter((path) => path.startsWith("/")).join("\n"))' > /linked \
  && xargs -a /linked -I FILE cp -L --parents FILE /root-fs/ \
  && printf 'root:x:0:0:root:/:/sbin/nologin\nbroker:x:10001:10001:broker:/data:/sbin/nologin\n' > /root-fs/etc/passwd \
  && printf 'root:x:0:\nbroker:x:10001:\n' > /root-fs/etc/group \
  && printf 'hosts: files dns\n' > /root-fs/etc/nsswitch.conf \
  && ln -s /app/bin/broker.mjs /root-fs/usr/local/bin/broker
COPY bin/broker.mjs bin/node24.mjs /root-fs/app/bin/
# Run by its name, without the env(1) that is not there.
RUN sed -i '1s|.*|#!/usr/local/bin/node|' /root-fs/app/bin/*.mjs && chmod 755 /root-fs/app/bin/*.mjs

FROM scratch AS app
COPY --from=root /root-fs /
COPY --from=modules /app/node_modules /app/node_modules
COPY LICENSE package.json /app/
COPY proto /app/proto
COPY --from=build /app/dist /app/dist
COPY --from=root --chown=10001:10001 /empty /data
ENV PATH=/usr/local/bin \
  NODE_ENV=production \
  NODE_OPTIONS=--max-old-space-size-percentage=50 \
  UV_THREADPOOL_SIZE=8 \
  BROKER_DATA_DIR=/data \
  BROKER_GRPC_LISTEN=0.0.0.0:8081 \
  BROKER_ADMIN_LISTEN=0.0.0.0:8000 \
  BROKER_RAFT_LISTEN=0.0.0.0:12000 \
  BROKER_GOSSIP_LISTEN=0.0.0.0:7946
USER 10001:10001
WORKDIR /data

# What Node makes of the sources, kept for probes and starts; for this user, whose number is a part of the name.
FROM app AS warm
COPY tools/warm-image.mjs /tmp/
ENV NODE_COMPILE_CACHE=/tmp/compiled
RUN ["node", "/tmp/warm-image.mjs"]

FROM app
COPY --from=warm --chown=0:0 /tmp/compiled /app/node_modules/.cache/compiled
VOLUME /data
EXPOSE 8081 8000 12000 7946/tcp 7946/udp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["broker", "health"]
ENTRYPOINT ["broker"]
CMD ["serve"]
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="broker" \
  org.opencontainers.image.description="A high-throughput message broker over gRPC" \
  org.opencontainers.image.version="${VERSION}" \
  org.opencontainers.image.licenses="Apache-2.0"
