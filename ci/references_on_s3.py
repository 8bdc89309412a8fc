"""Check references to frames on S3, read by xarray through s3fs and through Icechunk's client.

    python ci/references_on_s3.py

The S3 server is moto's, in a process of its own. moto and s3fs need an older python-dateutil than
the test extra has, so they are installed into an environment on top of this one, which is removed
at the end.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import tempfile
import time
import venv
from pathlib import Path

NEEDED = ("moto[s3]", "flask", "flask-cors", "s3fs")
BUCKET = "beamline"
SECRETS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


def main() -> int:
    """Make the environment, and run :func:`check` in it."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "environment"
        venv.create(place, with_pip=True)
        python = place / "bin" / "python"
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        base = place / "lib" / version / "site-packages" / "zz_base.pth"
        base.write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDED], check=True)
        paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        environment = {**os.environ, **SECRETS, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        call = [python, __file__, "--check", folder]
        return subprocess.run(call, env=environment).returncode


def check(folder: Path) -> None:
    """Put the files of a run on a server, and compare frames read through references to them."""
    import numpy as np
    import s3fs
    import xarray as xr
    from fsspec.implementations.reference import LazyReferenceMapper
    from moto.server import ThreadedMotoServer

    import daskbroker
    from daskbroker.testing.base import insert_all
    from daskbroker.testing.detector_runs import datum_run

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    while server._server is None:
        time.sleep(0.05)
    url = "http://{}:{}".format(*server.get_host_and_port())
    options = {"endpoint_url": url}
    files = folder / "files ü #1"
    files.mkdir()
    documents, data = datum_run(files)
    system = s3fs.S3FileSystem(**options)
    system.mkdir(BUCKET)
    system.put(str(files), f"{BUCKET}/raw/", recursive=True)
    to = {str(folder): f"s3://{BUCKET}/raw"}
    with daskbroker.connect(folder / "store") as db:
        insert_all(db, documents)
        made = [
            db[-1].export(folder / name, stream="primary", to=to)[0]
            for name in ("run.json", "run.parq", "run.icechunk")
        ]
    for path in made[:2]:
        fo = (
            str(path)
            if path.suffix == ".json"
            else LazyReferenceMapper(str(path), engine="pyarrow")
        )
        remote = {"remote_protocol": "s3", "remote_options": {**options, "asynchronous": True}}
        found = xr.open_zarr("reference://", storage_options={"fo": fo, **remote})
        assert (found["img"].compute() == data[:, None]).all(), path
        print(f"{path.name}: {found['img'].shape} frames are equal")
    found = _of_icechunk(made[2], url)
    assert np.array_equal(found["img"], data[:, None])
    print(f"{made[2].name}: {found['img'].shape} frames are equal")

    for path in made:
        assert daskbroker.verify_references(path, options) == []
    target = f"{BUCKET}/raw/{files.name}/a.h5"
    system.pipe(target, b"another file")
    for path in made:
        (changed,) = daskbroker.verify_references(path, options)
        print(changed)
    system.rm(target)
    (gone,) = daskbroker.verify_references(made[0], options)
    print(gone)
    server.stop()


def _of_icechunk(path: Path, url: str):
    import icechunk
    import xarray as xr

    prefix = f"s3://{BUCKET}/"
    store = icechunk.s3_store(
        region="us-east-1", endpoint_url=url, allow_http=True, force_path_style=True
    )
    storage = icechunk.local_filesystem_storage(str(path))
    config = icechunk.Repository.fetch_config(storage)
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer(prefix, store))
    secrets = icechunk.containers_credentials({prefix: icechunk.s3_from_env_credentials()})
    repo = icechunk.Repository.open(storage, config, authorize_virtual_chunk_access=secrets)
    return xr.open_zarr(repo.readonly_session("main").store, consolidated=False).compute()


if __name__ == "__main__":
    if "--check" in sys.argv:
        check(Path(sys.argv[-1]))
    else:
        sys.exit(main())
