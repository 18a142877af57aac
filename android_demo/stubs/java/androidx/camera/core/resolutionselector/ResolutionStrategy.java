// A signature, not the library: written by hand to compile against where the library cannot be had. See ../README.md.
package androidx.camera.core.resolutionselector;

import android.util.Size;
import androidx.annotation.NonNull;

public final class ResolutionStrategy {
    public static final int FALLBACK_RULE_CLOSEST_HIGHER_THEN_LOWER = 1;

    public ResolutionStrategy(@NonNull Size boundSize, int fallbackRule) {}
}
