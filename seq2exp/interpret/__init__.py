"""What a trained model uses: deletions, attributions, motifs."""
