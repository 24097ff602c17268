"""Copy a stylized picture out of an output, from a shard of --pack or as the file it is.

Examples:
  style-catalog picture "s3://studio/out/packed/monet@1/RUN/SHARD.tar#a%2Ejpg.png" a.png --storage s3://studio/styles
  style-catalog picture out/images/monet@1/a.jpg.png a.png --storage runs/demo
"""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from catalog.store import StyleCatalog


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("uri", metavar="URI", help="output_uri of the manifest's row")
    parser.add_argument("out", metavar="FILE", help="path or s3:// URI to write; replaced if it exists")


def run(catalog: "StyleCatalog", options: argparse.Namespace) -> None:
    from catalog.commands.output import print_done
    from catalog.pictures import picture_at
    from cluster.storage import Storage

    data, target = picture_at(options.uri), Storage.open(options.out)
    target.write_bytes("", data)
    print_done({"file": target.uri, "bytes": len(data)}, f"{target}: {len(data):,} bytes", json=options.json)
