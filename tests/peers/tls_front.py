"""TLS before a server without it, as a process that ends when its standard input does.

    tls_front.py PORT CERTIFICATE AUTHORITY

It listens on a port of its own, which it prints, and lets in whoever shows a certificate of the authority.
"""

import asyncio
import ssl
import sys

from tls_rig import Front


async def main(port: str, certificate: str, authority: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.load_verify_locations(authority)
    context.verify_mode = ssl.CERT_REQUIRED
    async with Front(int(port)).listening(context) as front:
        print(front.port, flush=True)
        await asyncio.to_thread(sys.stdin.read)


asyncio.run(main(*sys.argv[1:]))
