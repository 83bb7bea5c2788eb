#!/usr/bin/env bash
# pin.sh FILE...: pins every image that the files name by tag (`ARG BASE=`, `image:`) to the digest that its registry has now
# for the tag, which stays for readers. Nothing is written unless all are found. Our own images have no digest here.
set -euo pipefail
declare -A digests
for image in $(sed -nE 's/^(ARG BASE=|[[:space:]]*image: )([^@[:space:]]+:[^@[:space:]]+)(@sha256:[0-9a-f]{64})?$/\2/p' "$@" | grep -v ^birnn-serving: | sort -u); do
  # The digest of the list of all platforms, where there is one.
  digest=$(skopeo inspect --format '{{.Digest}}' "docker://$image")
  [[ $digest =~ ^sha256:[0-9a-f]{64}$ ]] || { echo "pin.sh: $image has no digest: $digest" >&2; exit 1; }
  digests[$image]=$digest
done
for image in "${!digests[@]}"; do
  sed -i -E "s|^(ARG BASE=\|[[:space:]]*image: )${image//./\\.}(@sha256:[0-9a-f]{64})?\$|\1$image@${digests[$image]}|" "$@"
  echo "$image@${digests[$image]}"
done
