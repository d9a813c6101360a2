"""HTTP of the installed command, on the loop that it runs on."""

import asyncio
import contextlib
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme
from exposed import free_port, get, until_listening
from shell import running

TOKEN = "a-token-of-the-bench-rig"


@pytest.mark.parametrize("tls", [False, True])
async def test_probes_and_metrics(tls: bool, tmp_path: Path) -> None:
    listen = f"127.0.0.1:{free_port()}"
    (tmp_path / "token").write_text(TOKEN)
    words = ["--http", listen, "--http-token-file", str(tmp_path / "token")]
    options: dict[str, Any] = {}
    if tls:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        issued.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
        issued.private_key_pem.write_to_path(tmp_path / "key.pem")
        words += ["--http-cert", str(tmp_path / "cert.pem"), "--http-key", str(tmp_path / "key.pem")]
        context = ssl.create_default_context()
        authority.configure_trust(context)
        options = {"scheme": "https", "ssl": context}
    bench = ("--sil", "--bench", "rig", "--broker", f"amqp://127.0.0.1:{free_port()}")
    async with running("run", "hydraulic-rig", *bench, *words) as agent:
        await until_listening(listen)
        async with asyncio.timeout(60):
            while True:
                # An agent that starts on a busy machine may be too slow for a handshake.
                with contextlib.suppress(aiohttp.ClientError):
                    if (await get(listen, "/readyz", **options))[0] == 200:
                        break
                await asyncio.sleep(0.1)
        assert (await get(listen, "/livez", **options))[0] == 200
        assert (await get(listen, "/metrics", **options))[0] == 401
        status, text = await get(listen, "/metrics", headers={"Authorization": f"Bearer {TOKEN}"}, **options)
        assert status == 200
        assert "hilgate_broker_up 0.0" in text
        if tls:
            with pytest.raises(aiohttp.ClientError):
                await get(listen, "/livez")
        ended = await agent.end()
        assert ended.code == 0
        assert "Traceback" not in ended.err
        assert TOKEN not in ended.err
