#!/usr/bin/env bash
# Proof of the packages: build host and plugins, install them into an empty environment, and use them there.
# Wheels are built from the source distributions, so that these are complete too.
set -euo pipefail
cd "$(dirname "$0")/.."
repository=$PWD
python=$repository/.venv/bin/python
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Everything is built twice, the second time from sources with other times, and has to come out the same.
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SOURCE_DATE_EPOCH
build() {
    local into=$1
    for folder in . plugins/rtpipe-*; do
        (cd "$folder" && "$python" -m hatchling build --target sdist --directory "$into/sdist" >"$work/log" 2>&1) ||
            { cat "$work/log"; exit 1; }
    done
    "$python" -m pip --quiet wheel --no-deps --no-build-isolation --no-cache-dir --wheel-dir "$into/wheels" \
        "$into"/sdist/*.tar.gz
    (cd "$into" && sha256sum sdist/* wheels/*) >"$into.sums"
}
build "$work/first"
mkdir "$work/copy"
git ls-files -co --exclude-standard -z | xargs -0 cp --parents -t "$work/copy" 2>/dev/null || true
(cd "$work/copy" && find rtpipe plugins -name '*.py' -exec touch {} + && build "$work/second")
diff "$work/first.sums" "$work/second.sums" || { echo "two builds differ"; exit 1; }
mv "$work/first/wheels" "$work/wheels"
cat "$work/first.sums"

"$python" -m venv "$work/empty"
pip="$work/empty/bin/python -m pip --quiet --disable-pip-version-check"
$pip install --find-links "$work/wheels" "$(ls "$work"/wheels/rtpipe_gateway-*.whl)[standard]"
$pip check

# Not from the repository, where `import rtpipe` would find the sources.
cd "$work"
export PATH="$work/empty/bin:$PATH"
export RTPIPE_DEMO_KEY=for-rtpipe-check-alone
config="$repository/config/demo.toml"
python -W error -c '
import rtpipe, sys
assert rtpipe.__file__.startswith(sys.prefix), rtpipe.__file__
from importlib.metadata import distributions
names = {each.metadata["Name"] for each in distributions()}
assert "rtpipe" not in names, "the radio astronomy package came along"
'
rtpipe --version
rtpipe plugins list --config "$config"
rtpipe check --config "$config"
rtpipe sample >sample.toml
for folder in "$repository"/plugins/rtpipe-*; do
    grep --quiet "^# ---- ${folder##*/rtpipe-} ----$" sample.toml || { echo "${folder##*/} has no sample in its wheel"; exit 1; }
done
rtpipe demo --config "$config"
cmp "$work/empty/share/man/man1/rtpipe.1" "$repository/config/rtpipe.1"

# By pipx, which has each program in an environment of its own.
$pip install pipx
export PIPX_HOME=$work/pipx PIPX_BIN_DIR=$work/pipx/bin PIPX_MAN_DIR=$work/pipx/man
pipx install "$work"/wheels/rtpipe_gateway-*.whl
pipx inject rtpipe-gateway "$work"/wheels/rtpipe_{auth,response_lock}-*.whl
"$PIPX_BIN_DIR/rtpipe" keys --help
"$PIPX_BIN_DIR/rtpipe" completion bash | bash -n
cmp "$PIPX_MAN_DIR/man1/rtpipe.1" "$repository/config/rtpipe.1"
echo "wheels: ok"
