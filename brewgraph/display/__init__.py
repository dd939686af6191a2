"""Shows a spec and its graphs: plan, diagram, svg, page, equation text, explanation. Computes nothing."""
