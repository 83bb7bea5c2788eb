"""A FastAPI application that compares two molecules.

    pip install birnn-serving fastapi uvicorn
    birnn serve                                   # in another shell
    uvicorn web_app:app --port 8080
    curl 'http://127.0.0.1:8080/similarity?first=CCO&second=CCN'

All requests share one client, and the server batches what arrives together. BIRNN_ADDRESS is where the server is.
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import numpy as np
from fastapi import FastAPI, HTTPException, Query, Request

import birnn


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One client for as long as the application runs."""
    async with birnn.AsyncClient(os.environ.get("BIRNN_ADDRESS", "127.0.0.1:8001")) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)
Smiles = Annotated[str, Query(min_length=1, max_length=2000)]


@app.get("/similarity")
async def similarity(request: Request, first: Smiles, second: Smiles) -> dict[str, float]:
    """The cosine of two molecules' vectors."""
    client: birnn.AsyncClient = request.app.state.client
    try:
        one, other = await client.encode([first, second], encoder="smiles", timeout=5)
    except birnn.SequenceError as error:
        raise HTTPException(422, str(error)) from error
    except birnn.EncodeError as error:
        raise HTTPException(503, str(error)) from error
    return {"cosine": float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))}
