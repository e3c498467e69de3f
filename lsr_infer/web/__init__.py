"""What stands behind the demo page: sessions, limits, a fair queue, worker processes that can be killed.

`demo/app.py` starts it and is Gradio's part of it. `routes` and `server` need the extra `demo`, since starlette and
uvicorn come with it; nothing else in `lsr_infer` imports this package.
"""
