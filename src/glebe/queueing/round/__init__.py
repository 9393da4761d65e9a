"""The admission cycle's shell: look, ask the core, write; forecasts and plans published."""
