"""nginx with its default buffers: bytes through a tunnel, one worker."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.relays.base import Relay, Unavailable, run

CONFIG = """\
daemon off;
worker_processes 1;
pid {work}/nginx.pid;
error_log {work}/error.log;
worker_rlimit_nofile 8192;
{user}
events {{ worker_connections 4096; }}
http {{
    access_log off;
    client_body_temp_path {work}/body;
    proxy_temp_path {work}/proxy;
    fastcgi_temp_path {work}/fastcgi;
    uwsgi_temp_path {work}/uwsgi;
    scgi_temp_path {work}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream_port};
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection "upgrade";
            proxy_read_timeout 600s;
        }}
    }}
}}
"""


class Nginx(Relay):
    name = "nginx"

    def prepare(self, cache: Path, *, install: bool) -> None:
        found = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
        self._nginx = found or self._unpacked(cache / "nginx", install=install)
        self._version()

    def _unpacked(self, directory: Path, *, install: bool) -> str:
        """The distribution's package unpacked, not installed: that would start a server for everybody."""
        program = directory / "usr" / "sbin" / "nginx"
        if not program.exists():
            if not install or shutil.which("apt-get") is None:
                raise Unavailable("not installed: apt-get install nginx")
            packages = directory / "packages"
            packages.mkdir(parents=True, exist_ok=True)
            os.chmod(packages, 0o755)  # noqa: S103
            run(["sh", "-c", 'cd "$1" && apt-get -qq download nginx', "sh", str(packages)])
            for package in packages.glob("nginx_*.deb"):
                run(["dpkg-deb", "-x", str(package), str(directory)])
        return str(program)

    def command(self, port: int, upstream_port: int, work: Path) -> tuple[Sequence[str], Mapping[str, str]]:
        config = work / "nginx.conf"
        user = "user root;" if os.geteuid() == 0 else ""  # or its worker could not write in *work*
        config.write_text(CONFIG.format(work=work, port=port, upstream_port=upstream_port, user=user))
        return [self._nginx, "-p", str(work), "-e", str(work / "error.log"), "-c", str(config)], {}

    def versions(self) -> Mapping[str, str]:
        return {"nginx": self._version()}

    def _version(self) -> str:
        try:
            said = subprocess.run(  # noqa: S603
                [self._nginx, "-v"], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise Unavailable(f"nginx -v: {error}") from None
        return said.stderr.strip().rpartition("/")[2]
